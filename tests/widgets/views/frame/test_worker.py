"""The worker behind a view: what it leaves, it leaves at once, in the middle of a kernel too; pieces come as made."""

import asyncio
import threading
import time

import numpy as np
import pytest
from scipy import sparse

from kernels.matmul.spgemm import spgemm
from widgets.views.frame.worker import DELIVERED, Cancelled, LatestWins


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


def answers_of(compute, ask, progressed=lambda *_: None, answered=lambda: None):
    """Return what a worker in an event loop answers to what ``ask(worker)`` asks, until nothing is left to come."""
    results = []

    def done(*answer):
        results.append(answer)
        answered()

    async def work():
        worker = LatestWins(compute, done, progressed)
        ask(worker)
        end = time.monotonic() + 10
        while worker.busy and time.monotonic() < end:
            await asyncio.sleep(0.005)
        worker.close()

    asyncio.run(work())
    return results


def test_a_piece_is_delivered_while_the_next_is_computed():
    seen = threading.Event()

    def compute(request, progress):
        yield "picture"
        yield seen.wait(5)

    found = answers_of(compute, lambda worker: worker.submit("one"), answered=seen.set)
    assert found == [("one", "picture", None), ("one", True, None), ("one", DELIVERED, None)]


def test_a_piece_of_what_was_replaced_is_not_delivered():
    begun, go = threading.Event(), threading.Event()

    def compute(request, progress):
        if request == "old":
            begun.set()
            go.wait(5)
        yield f"picture of {request}"

    def ask(worker):
        worker.submit("old")
        begun.wait(5)
        worker.submit("new")
        go.set()

    assert answers_of(compute, ask) == [("new", "picture of new", None), ("new", DELIVERED, None)]


def test_progress_is_told_at_most_ten_times_a_second_from_a_thread_that_does_not_hold_up_the_end():
    told, heard = [], threading.Event()

    def compute(request, progress):
        begin = time.monotonic()
        for at in range(1000):
            progress(at / 1000, "step")
        took_s = time.monotonic() - begin
        heard.wait(5)
        return took_s, threading.current_thread().daemon

    def progressed(*what):
        told.append(what)
        heard.set()

    [(_, (took_s, daemon), error)] = answers_of(compute, lambda worker: worker.submit(1), progressed)
    assert error is None and daemon
    assert told[0] == (0, "step") and len(told) <= 1 + took_s / 0.1


def test_without_an_event_loop_every_piece_and_every_error_is_delivered_at_once():
    def compute(request, progress):
        progress(0.5, "half")
        yield request + 1
        yield 1 / request

    told, results = [], []
    worker = LatestWins(compute, lambda *answer: results.append(answer), lambda *what: told.append(what))
    worker.submit(2)
    assert results == [(2, 3, None), (2, 0.5, None), (2, DELIVERED, None)]
    worker.submit(0)
    assert results[3] == (0, 1, None) and isinstance(results[4][2], ZeroDivisionError) and len(results) == 5
    assert told == [] and not worker.busy


@pytest.mark.parametrize("when", ["while it runs", "once it has ended"])
def test_nothing_of_what_was_cancelled_arrives_though_it_was_made_or_its_progress_told(when):
    """The event loop stands still until after the cancelling, so what the thread has posted comes later."""
    told, posted, go = [], threading.Event(), threading.Event()

    def compute(request, progress):
        progress(0.5, "step")
        posted.set()
        go.wait(5)
        return request

    def ask(worker):
        worker.submit(1)
        thread = worker._thread
        posted.wait(5)
        if when == "once it has ended":
            go.set()
            thread.join(5)
        assert worker.busy
        worker.cancel()
        assert not worker.busy
        go.set()
        thread.join(5)
        worker.submit(2)

    assert answers_of(compute, ask, lambda *what: told.append(what)) == [(2, 2, None)]
    assert len(told) <= 1  # that of the second request, if the loop came to it before the end


def test_waiting_ends_with_the_result_or_in_time_and_what_is_closed_takes_no_request():
    go, results = threading.Event(), []

    async def work():
        worker = LatestWins(lambda *_: go.wait(5), lambda *answer: results.append(answer), lambda *_: None)
        worker.submit(1)
        with pytest.raises(TimeoutError, match=r"still computing after 0\.05 s"):
            worker.wait(0.05)
        threading.Timer(0.1, go.set).start()
        worker.wait(5)
        assert results == [(1, True, None)]
        worker.close()
        worker.submit(2)
        assert not worker.busy
        await asyncio.sleep(0.05)

    asyncio.run(work())
    assert results == [(1, True, None)]
