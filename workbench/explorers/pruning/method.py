"""What a method tells the pruning explorer of itself, and the methods there are: one file each under ``methods``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from torch import nn

from workbench.gathered import find, gathered

__all__ = ["VALUE_BITS", "Compressed", "Knowledge", "PruningMethod", "method", "methods"]

PACKAGE = "workbench.explorers.pruning.methods"
VALUE_BITS = 16  # what a stored weight is counted as


@dataclass(frozen=True, kw_only=True, eq=False)
class Knowledge:
    """What a method may know of the layer that it prunes; None where the method did not ask for it.

    Parameters
    ----------
    gram : float64 (n, n), X^T X of the layer's inputs on calibration data.
    tokens : rows of X.
    gradient : float32 (m, n), of the model's loss by the weights, summed over calibration batches.
    """

    gram: np.ndarray | None = None
    tokens: int = 0
    gradient: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Compressed:
    """What a method made of one matrix.

    Parameters
    ----------
    weight : float32 (m, n), the matrix that the layer multiplies with now.
    kept : bool (m, n), which weights stay; None for a method that leaves none out.
    bits : what is stored, by kind ("values", "indices", ...), in bits, values counted as `VALUE_BITS` each.
    multiply_adds : for each token.
    pack : () -> (product, bytes): ``product(x)`` maps float32 (n, tokens) to (m, tokens) on the method's kernel, and
        ``bytes`` is what the arrays that it reads occupy. None where no kernel multiplies with what is stored: such a
        point has no time.
    """

    weight: np.ndarray
    kept: np.ndarray | None
    bits: Mapping[str, int]
    multiply_adds: int
    pack: Callable[[], tuple[Callable[[np.ndarray], np.ndarray], int]] | None


@dataclass(frozen=True, kw_only=True)
class PruningMethod:
    """One way to make the weights of a linear layer take less.

    Parameters
    ----------
    key, title : name of the file, and what readers see.
    levels : how far it prunes, as readers see it, such as "0.7" (share of the weights, or of the stored values, that
        go) or "2:4" (n of every m stay); the first is offered at the start.
    compress : (weight float32 (m, n), knowledge, level) -> Compressed. Of a method that prunes while the model trains,
        the weight is the trained one, whose zeros are what went.
    needs : "weights" alone, the "gram" matrix of the inputs, or the "gradient" of the model's loss.
    source : where the method is published.
    count : (shape (m, n), level, value_bits) -> what `compress` would store of such a matrix, bits by kind, from
        counting alone; None where that is not known before the weights are.
    ladder : which levels it takes besides those that are offered: any "share", any "n:m", or none ("levels").
    masks : whether weights go one by one or in groups, as zeros that a short training can leave at 0; False for a
        method that puts a product of factors, or rounded numbers, in the place of the matrix.
    trained : (model, batches, level, **how) -> a copy that was pruned while it trained, with the ``steps``, ``rate``,
        ``loss``, ``seed`` and ``report`` of `prune_while_distilling`; None for a method that prunes before.
    note : what a reader should know of its points, a sentence or "".
    """

    key: str
    title: str
    levels: tuple[str, ...]
    compress: Callable[[np.ndarray, Knowledge, str], Compressed]
    source: str
    needs: Literal["weights", "gram", "gradient"] = "weights"
    count: Callable[[tuple[int, int], str, int], Mapping[str, int]] | None = None
    ladder: Literal["share", "n:m", "levels"] = "share"
    masks: bool = True
    trained: Callable[..., nn.Module] | None = None
    note: str = ""

    @property
    def one_shot(self) -> bool:
        """Whether it prunes without training; if not, it is only shown after a short training."""
        return self.trained is None


@cache
def methods() -> dict[str, PruningMethod]:
    """Return every method by key."""
    return gathered(PACKAGE, "METHOD")


def method(key: str) -> PruningMethod:
    """Return the method of a key; KeyError names the nearest one."""
    found: dict[str, Any] = methods()
    return find("pruning method", key, found)
