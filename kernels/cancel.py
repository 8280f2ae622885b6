"""Ends a kernel that nobody waits for any more, from another thread; in the main thread Ctrl-C does so by itself."""

import threading

from kernels._native import core

__all__ = ["CancelToken", "Cancelled", "check_cancelled"]

Cancelled = core.Cancelled
Cancelled.__module__ = __name__
Cancelled.__doc__ = "Raised by a kernel whose thread listens to a cancelled `CancelToken`."
_here = threading.local()


class CancelToken:
    """Cancels the kernels of a thread: those that run inside ``with token:``, now and later.

    A kernel looks at the token every few milliseconds. One that was cancelled raises `Cancelled`, gives back its memory
    and leaves nothing half done: the next call, outside the block, is like any other. Inside nested blocks a thread
    listens to the innermost token.

    >>> token = CancelToken()
    >>> token.cancel()
    >>> with token:
    ...     spgemm(a, b)  # doctest: +SKIP
    Traceback (most recent call last):
    kernels.cancel.Cancelled: the kernel was cancelled; nobody waits for its result
    """

    def __init__(self):
        self._flag = core.StopFlag()

    def __enter__(self) -> "CancelToken":
        self._flag.listen()
        _here.tokens = (*getattr(_here, "tokens", ()), self)
        return self

    def __exit__(self, *error) -> None:
        self._flag.stop_listening()
        _here.tokens = _here.tokens[:-1]

    def cancel(self) -> None:
        """End the running kernel of every thread inside ``with`` this token, and each that it calls there later."""
        self._flag.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` has been called."""
        return self._flag.is_set()


def check_cancelled() -> None:
    """Raise `Cancelled` if this thread listens to a cancelled token: for kernels whose loop is in Python."""
    tokens = getattr(_here, "tokens", ())
    if tokens and tokens[-1].cancelled:
        raise Cancelled("the kernel was cancelled; nobody waits for its result")
