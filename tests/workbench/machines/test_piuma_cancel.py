"""The model's compiled loops end when nobody waits for them, within a window too."""

import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp

from kernels.cancel import Cancelled, CancelToken
from workbench.machines.piuma import PiumaConfig, hash_trace, plan_windows, simulate_spgemm

CONFIG = PiumaConfig(log2_slots=22, load=1.0)


@pytest.fixture(scope="module")
def one_window():
    a = sp.csr_array(np.where(np.random.default_rng(2).random((1000, 1000)) < 0.4, 1.0, 0))
    windows = plan_windows(a, a, CONFIG.slots, CONFIG.load)
    assert len(windows) == 1
    return a, windows


@pytest.mark.parametrize("part", ["replay", "simulation"])
def test_a_cancelled_model_ends_within_a_third_of_a_second(one_window, part):
    a, windows = one_window
    trace = hash_trace(a, a, windows, CONFIG.slots) if part == "simulation" else None
    token, reached = CancelToken(), []
    with token:
        timer = threading.Timer(0.1, lambda: (reached.append(time.perf_counter()), token.cancel()))
        timer.start()
        with pytest.raises(Cancelled):
            while True:
                simulate_spgemm(a, a, 1, CONFIG, check_spad=False, trace=trace)
        assert time.perf_counter() - reached[0] < 0.3
