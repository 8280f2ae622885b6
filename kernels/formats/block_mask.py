"""A 0/1 matrix made of whole blocks."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kernels.check import as_ints, is_plain

__all__ = ["BlockMask"]


@dataclass(frozen=True, eq=False)
class BlockMask:
    """A 0/1 matrix made of whole blocks.

    Entry (i, j) is kept where ``blocks[i // br, j // bc]`` is True.

    Parameters
    ----------
    blocks : bool (ceil(m / br), ceil(n / bc)), C-contiguous.
    block_shape : (br, bc), rows and columns of a block, at least 1.
    shape : (m, n) of the matrix itself; blocks in the last row and column may stick out.
    """

    blocks: np.ndarray
    block_shape: tuple[int, int]
    shape: tuple[int, int]

    def __post_init__(self):
        if not (is_plain(self.blocks) and self.blocks.ndim == 2 and self.blocks.dtype == np.bool_):
            raise TypeError("BlockMask: blocks must be a two-dimensional bool array; use blocks.astype(bool)")
        if not self.blocks.flags.c_contiguous:
            raise ValueError("BlockMask: blocks must be C-contiguous; use np.ascontiguousarray(blocks)")
        br, bc = as_ints(self.block_shape, 2, function="BlockMask", name="block_shape", low=1)
        m, n = as_ints(self.shape, 2, function="BlockMask", name="shape", low=0)
        wanted = (-(-m // br), -(-n // bc))
        if self.blocks.shape != wanted:
            raise ValueError(
                f"BlockMask: blocks has shape {self.blocks.shape}; {m} x {n} in {br} x {bc} blocks needs {wanted}"
            )

    @property
    def nnz(self) -> int:
        """Entries kept, those of the last blocks counted only inside the matrix."""
        rows, columns = (
            np.minimum(np.arange(1, count + 1) * size, total) - np.arange(count) * size
            for count, size, total in zip(self.blocks.shape, self.block_shape, self.shape, strict=True)
        )
        return int(rows @ (self.blocks @ columns)) if self.blocks.size else 0

    @property
    def density(self) -> float:
        """Kept entries over all entries, in [0, 1]; 0 for an empty matrix."""
        size = self.shape[0] * self.shape[1]
        return self.nnz / size if size else 0.0

    @cached_property
    def packed(self) -> bytes:
        """Blocks as bits, row by row, first block in the highest bit of a byte; each row padded to whole bytes."""
        return np.packbits(self.blocks, axis=1).tobytes()
