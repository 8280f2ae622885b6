"""Changes of a model's weights as sparse matrices: applied with a strength, and merged."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import sparse
from torch import nn

from kernels.check import as_csr, as_number

__all__ = ["apply_delta", "change_matrix", "merge_deltas"]


def change_matrix(shape: Sequence[int], index: np.ndarray, values: np.ndarray) -> sparse.csr_array:
    """Return values at flat places, rising, as a matrix whose rows are the first axis; a vector is one row."""
    rows = shape[0] if len(shape) > 1 else 1
    columns = int(np.prod(shape, dtype=np.int64)) // rows if rows else 0
    at = np.divmod(index.astype(np.int64), max(1, columns))
    starts = np.concatenate([[0], np.cumsum(np.bincount(at[0], minlength=rows))])
    return sparse.csr_array((values, at[1], starts), shape=(rows, columns))


@torch.no_grad()
def apply_delta(model: nn.Module, delta: Mapping[str, sparse.csr_array], scale=1.0) -> nn.Module:
    """Add a change to a model's parameters, in place.

    Parameters
    ----------
    model : from which the change was made; entries outside the change keep their bits.
    delta : name of a parameter -> csr_array float64, rows by all further axes; a vector is one row.
    scale : strength; 0 changes nothing, 1 gives the tuned model, more exaggerates.

    Returns
    -------
    The model.

    Raises
    ------
    KeyError : the model has no such parameter. ValueError : a shape that does not fit; nothing has been changed then.

    Source
    ------
    Hu et al. 2024, "SaRA", on the strength of a style.
    """
    scale = as_number(scale, function="apply_delta", name="scale")
    there = dict(model.named_parameters())
    checked = {}
    for name, change in delta.items():
        if name not in there:
            raise KeyError(f"apply_delta: the model has no parameter {name!r}; it has {', '.join(list(there)[:5])} ...")
        change, shape = as_csr(change, function="apply_delta", name=name), there[name].shape
        wanted = (shape[0] if len(shape) > 1 else 1, there[name].numel() // max(1, shape[0] if len(shape) > 1 else 1))
        if change.shape != wanted:
            raise ValueError(f"apply_delta: {name} must be {wanted}, as the model's {tuple(shape)}, got {change.shape}")
        checked[name] = change
    for name, change in checked.items() if scale else ():
        rows = np.repeat(np.arange(change.shape[0]), np.diff(change.indptr))
        at = torch.from_numpy(rows * change.shape[1] + change.indices)
        flat = there[name].detach().view(-1)
        flat[at] = (flat[at].double() + scale * torch.from_numpy(change.data).double()).to(flat.dtype)
    return model


def merge_deltas(
    deltas: Sequence[Mapping[str, sparse.csr_array]], scales: Sequence[float]
) -> dict[str, sparse.csr_array]:
    """Return the weighed sum of changes of one model.

    Parameters
    ----------
    deltas : each name -> csr_array; a name that one lacks counts as 0 there.
    scales : as many numbers.

    Raises
    ------
    ValueError : no change, not as many numbers, or shapes of one name that differ.

    Source
    ------
    Hu et al. 2024, "SaRA", on merging styles, 0.6 each.
    """
    if not deltas or len(deltas) != len(scales):
        raise ValueError(f"merge_deltas: deltas and scales must be as many, got {len(deltas)} and {len(scales)}")
    factors = [as_number(x, function="merge_deltas", name="each of scales") for x in scales]
    merged: dict[str, sparse.csr_array] = {}
    for delta, factor in zip(deltas, factors, strict=True):
        for name, change in delta.items():
            if name in merged and merged[name].shape != change.shape:
                raise ValueError(f"merge_deltas: {name} is {merged[name].shape} in one and {change.shape} in another")
            merged[name] = merged[name] + factor * change if name in merged else factor * change
    return merged
