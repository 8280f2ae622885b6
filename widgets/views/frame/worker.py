"""Work behind a view, off the page's thread: the newest request wins, older ones stop where they are."""

import asyncio
import contextlib
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from kernels.cancel import Cancelled, CancelToken

Progress = Callable[[float, str], None]
DELIVERED = object()  # stands for the result of work that has handed over all it had, piece by piece


class _Job:
    def __init__(self, request):
        self.request = request
        self.token = CancelToken()  # cancelled when another request takes the place of this one
        self.abandoned = False


class LatestWins:
    """Runs ``compute(request, progress)`` in a thread and hands results to the thread that made this object.

    One thread at most runs at a time and ends when nothing is left to do. A request that arrives meanwhile replaces
    any that waits, and the running one is told to stop: `Cancelled` is raised in it by ``progress``, or by the kernel
    that it is in. Results arrive through the event loop that was running at
    construction (a Jupyter kernel's); without one, `submit` computes at once, in the caller's thread.

    Parameters
    ----------
    compute : ``compute(request, progress) -> result``; calls ``progress(fraction, step)`` now and then. A generator
        hands over each result that it yields at once, such as a picture first and its statistics later.
    done : ``done(request, result, error)`` where one of result and error is None. After a generator's last result it
        is called once more with `DELIVERED`.
    progressed : ``progressed(fraction, step)``, at most ten times a second.
    """

    REPORT_EVERY_S = 0.1

    def __init__(
        self,
        compute: Callable[[Any, Progress], Any],
        done: Callable[[Any, Any, BaseException | None], None],
        progressed: Progress,
    ):
        self._compute, self._done, self._progressed = compute, done, progressed
        self._lock = threading.Lock()
        self._mail: deque[Callable[[], None]] = deque()
        self._running: _Job | None = None
        self._waiting: _Job | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._loop: Any = None
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    @property
    def busy(self) -> bool:
        """Whether a result is still to come."""
        with self._lock:
            running = self._running is not None and not self._running.abandoned
            return running or self._waiting is not None or bool(self._mail)

    def submit(self, request) -> None:
        """Ask for the result of ``request``; whatever was asked before no longer matters."""
        job = _Job(request)
        if self._loop is None or self._loop.is_closed():
            self._deliver(job, *self._attempt(job))
            return
        with self._lock:
            if self._closed:
                return
            self._waiting = job
            if self._running is not None:
                self._running.token.cancel()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="view-worker", daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """Stop waiting: nothing asked so far will be delivered."""
        with self._lock:
            self._waiting = None
            if self._running is not None:
                self._running.abandoned = True
                self._running.token.cancel()
            self._mail.clear()

    def close(self) -> None:
        """Cancel, and take no more requests; the thread ends at its next step."""
        self._closed = True
        self.cancel()

    def wait(self, timeout_s: float) -> None:
        """Block until nothing is left to do, delivering results here; TimeoutError after ``timeout_s``."""
        end = time.monotonic() + timeout_s
        while self.busy:
            self._open_mail()
            if time.monotonic() > end:
                raise TimeoutError(f"view.wait: still computing after {timeout_s:g} s; wait longer or cancel it.")
            time.sleep(0.002)

    def _work(self):
        while True:
            with self._lock:
                self._running, self._waiting = self._waiting, None
                job = self._running
                if job is None:
                    self._thread = None
                    return
            outcome = self._attempt(job)
            with self._lock:
                self._running = None
                if job.abandoned or self._closed:
                    continue
                self._mail.append(lambda job=job, outcome=outcome: self._deliver(job, *outcome))
            self._post(self._open_mail)
            del job, outcome

    def _attempt(self, job):
        last = -1.0

        def progress(fraction: float, step: str = "") -> None:
            nonlocal last
            if job.token.cancelled:
                raise Cancelled
            now = time.monotonic()
            if self._thread is not None and now - last >= self.REPORT_EVERY_S:
                last = now
                self._post(self._report, job, fraction, step)

        try:
            with job.token:
                result = self._compute(job.request, progress)
                if not inspect.isgenerator(result):
                    return result, None
                for part in result:
                    self._hand_over(job, part)
            return DELIVERED, None
        except Cancelled as stopped:
            return None, stopped
        except Exception as error:
            return None, error

    def _hand_over(self, job, part):
        if self._thread is None:
            self._deliver(job, part, None)
            return
        with self._lock:
            if job.token.cancelled or self._closed:
                raise Cancelled
            self._mail.append(lambda: self._deliver(job, part, None))
        self._post(self._open_mail)

    def _report(self, job, fraction, step):
        if self._running is job and not job.abandoned:
            self._progressed(fraction, step)

    def _deliver(self, job, result, error):
        if not (self._closed or job.abandoned or isinstance(error, Cancelled)):
            self._done(job.request, result, error)

    def _post(self, call, *args):
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            self._closed = True

    def _open_mail(self):
        while True:
            with self._lock:
                if not self._mail:
                    return
                letter = self._mail.popleft()
            letter()
