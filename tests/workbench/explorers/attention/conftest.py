"""The explorer times kernels for its table of facts; tests that do not look at the times leave that out."""

import pytest

from workbench.explorers.attention import explorer


@pytest.fixture(autouse=True)
def untimed(request, monkeypatch):
    """Leave the times out, unless the test is marked ``timed``."""
    if request.node.get_closest_marker("timed") is None:
        monkeypatch.setattr(explorer, "_times", lambda given, method, state, seen: {})
