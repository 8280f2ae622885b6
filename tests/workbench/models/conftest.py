"""What tests of models share."""

import pytest


@pytest.fixture
def one_thread():
    """Let torch use one thread: with tiny operators, a second one on a busy machine mostly waits for the first."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
