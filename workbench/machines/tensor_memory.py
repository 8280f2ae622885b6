"""The largest tensor that a computation makes: what tells linear from quadratic memory, without a clock."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["largest_tensor_bytes"]


def largest_tensor_bytes(run: Callable[[], Any]) -> int:
    """Return the bytes of the largest tensor that torch's operators make while ``run()`` is called, backward included.

    A tensor counts with the memory that it holds: the elements of its storage times the bytes of one, so that float64
    counts twice as much as float32. Inputs do not count, for they are not made, nor does what only looks at memory that
    is there: views, slices, ``expand``, and operators that write in place. What NumPy or our own kernels allocate is
    not seen.

    Parameters
    ----------
    run : does the work once.

    Returns
    -------
    bytes, 0 if no tensor was made.
    """
    with _Largest() as largest:
        run()
    return largest.nbytes


class _Largest(TorchDispatchMode):
    nbytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given = {_address(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        made = (x for x in tree_leaves(out) if isinstance(x, torch.Tensor) and _address(x) not in given)
        self.nbytes = max([self.nbytes, *(x.untyped_storage().nbytes() for x in made)])
        return out


def _address(tensor):
    return tensor.untyped_storage().data_ptr()
