"""The worker behind a view: what it leaves, it leaves at once, in the middle of a kernel too."""

import asyncio
import time

import numpy as np
import pytest
from scipy import sparse

from kernels.matmul.spgemm import spgemm
from widgets.views.frame.worker import Cancelled, LatestWins


@pytest.mark.parametrize("how", ["cancel", "submit", "close"])
def test_a_kernel_that_nobody_waits_for_ends(how):
    """The work below takes seconds and reports no progress meanwhile."""
    a = sparse.csr_array(np.where(np.random.default_rng(1).random((1500, 1500)) < 0.3, 1.5, 0))
    ended, results = [], []

    def compute(request, progress):
        if request == "short":
            return spgemm(a[:3], a[:, :3].tocsr()).shape
        try:
            spgemm(a, a, method="inner")
        except Cancelled:
            ended.append(time.monotonic())
            raise

    async def work():
        worker = LatestWins(compute, lambda *answer: results.append(answer), lambda *_: None)
        worker.submit("long")
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        {"cancel": worker.cancel, "submit": lambda: worker.submit("short"), "close": worker.close}[how]()
        while not ended and time.monotonic() - begin < 2:
            await asyncio.sleep(0.005)
        assert ended and ended[0] - begin < 0.3
        worker.wait(5)
        worker.close()

    asyncio.run(work())
    assert results == ([("short", (3, 3), None)] if how == "submit" else [])
