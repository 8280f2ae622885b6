"""Four visitors at the same moment beside two busy cores: each gets its pictures, and a loading page at once."""

import pytest

from tests.browser.load import measure, percentile


@pytest.mark.timeout(500)
def test_four_visitors_beside_two_busy_cores_all_get_their_pictures(chromium_path):
    """Twice as many as there are cores to start kernels on; ``load.py`` lets thirty come."""
    visits, loading_s, log = measure(visitors=4, busy=2, patience_s=200, options=("--warm", "sparsity_patterns"))
    seen = {(visit.page, visit.outcome, visit.errors) for visit in visits}
    assert all(visit.outcome == "pictures" for visit in visits), seen
    assert percentile(loading_s, 0.95) < 2
    assert "Traceback" not in log
