r"""Keys or values of a cache in few bits: blocks of codes, with a low-rank part and exact outliers.

.. math:: \hat X = D + A B^T + S

D are the levels of the codes (0 where an outlier lies), A B^T is one low-rank part for each head and block, and S holds
the outliers. Keys may share scales along tokens, channel by channel; values share them along channels, token by token.

Source
------
Kang et al. 2024, "GEAR", section 3; layouts of Liu et al. 2024, "KIVI". The order in memory is ours.
"""

from dataclasses import dataclass

import numpy as np

from kernels.check import as_int, check_array, check_choice
from kernels.formats.quantised import UNIT, unpack_bits

__all__ = ["KINDS", "CompressedBlocks"]

KINDS = ("key", "value")


@dataclass(frozen=True, eq=False, kw_only=True)
class CompressedBlocks:
    """Equal blocks of tokens, one behind the other; shapes begin with (blocks, batch, heads).

    Parameters
    ----------
    kind : "key" or "value".
    tokens, d : tokens of a block, and channels of a head.
    bits, group : of a code; numbers that share a scale.
    by_channel : whether a group lies along the tokens of one channel (keys only) or along the channels of one token.
    codes : uint8, of `pack_bits`: by channel (..., d, units, 2 bits) with units of 16 tokens, else (..., tokens, units,
        2 bits) with units of 16 channels. An outlier has code 0.
    scale, zero : float16, by channel (..., d, groups); else (blocks, batch, heads, tokens, groups of a head), or
        (blocks, batch, 1, tokens, groups) where groups are counted over the channels of all heads.
    factor : float16 (blocks, batch, heads or 1, rank, tokens up to a whole unit), A^T, zeros at the end.
    basis : float16 (blocks, batch, heads, rank, d), B^T.
    places, values : uint16 and float16, outliers: of keys (..., d, count), places among the block's tokens; of values
        (blocks, batch, tokens, count), places among the channels of all heads.
    """

    kind: str
    tokens: int
    d: int
    bits: int
    group: int
    by_channel: bool
    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    factor: np.ndarray
    basis: np.ndarray
    places: np.ndarray
    values: np.ndarray

    def __post_init__(self):
        check_choice(self.kind, KINDS, function="CompressedBlocks", name="kind")
        for name, low, high in (("tokens", 1, 2**16), ("d", 1, 512), ("bits", 1, 8), ("group", 1, 2**31)):
            as_int(getattr(self, name), function="CompressedBlocks", name=name, low=low, high=high)
        dtypes = {"codes": np.uint8, "places": np.uint16}
        for name in ("codes", "scale", "zero", "factor", "basis", "places", "values"):
            found = getattr(self, name)
            check_array(found, function="CompressedBlocks", name=name, dtypes=(dtypes.get(name, np.float16),))
            if not found.flags.c_contiguous:
                raise ValueError(f"CompressedBlocks: {name} must be C-contiguous; pass np.ascontiguousarray({name})")
        if self.by_channel and self.kind == "value":
            raise ValueError("CompressedBlocks: values share scales along channels; use by_channel=False")
        for name, wanted in self._wanted().items():
            found = getattr(self, name).shape
            if found != wanted:
                raise ValueError(f"CompressedBlocks: {name} must have shape {wanted}, got {found}")

    def _wanted(self):
        if self.codes.ndim < 3 or self.scale.ndim < 3 or self.factor.ndim < 5 or not self.places.ndim:
            raise ValueError(
                f"CompressedBlocks: codes, scale and factor begin with (blocks, batch, heads), got {self.codes.shape}, "
                f"{self.scale.shape} and {self.factor.shape}"
            )
        count, batch, heads = self.codes.shape[:3]
        width, rank, each = 2 * self.bits, self.factor.shape[3], self.places.shape[-1]
        units = -(-(self.tokens if self.by_channel else self.d) // UNIT)
        apart = self.scale.shape[2]
        if self.by_channel:
            scale = (count, batch, heads, self.d, -(-self.tokens // self.group))
        elif apart == heads and self.d % self.group == 0:
            scale = (count, batch, heads, self.tokens, self.d // self.group)
        else:
            scale = (count, batch, 1, self.tokens, -(-heads * self.d // self.group))
        return {
            "codes": (count, batch, heads, self.d if self.by_channel else self.tokens, units, width),
            "scale": scale,
            "zero": scale,
            "factor": (count, batch, 1 if self.factor.shape[2] == 1 else heads, rank, -(-self.tokens // UNIT) * UNIT),
            "basis": (count, batch, heads, rank, self.d),
            "places": (count, batch, *((heads, self.d) if self.kind == "key" else (self.tokens,)), each),
            "values": self.places.shape,
        }

    @property
    def count(self) -> int:
        """Number of blocks."""
        return self.codes.shape[0]

    @property
    def batch(self) -> int:
        """Number of sequences."""
        return self.codes.shape[1]

    @property
    def heads(self) -> int:
        """Heads of keys and values."""
        return self.codes.shape[2]

    @property
    def length(self) -> int:
        """Tokens of all blocks."""
        return self.count * self.tokens

    @property
    def rank(self) -> int:
        """Rank of the low-rank part."""
        return self.factor.shape[3]

    def bytes_by_part(self) -> dict[str, int]:
        """Return bytes by what they hold."""
        return {
            "codes": self.codes.nbytes,
            "scales": self.scale.nbytes + self.zero.nbytes,
            "low rank": self.factor.nbytes + self.basis.nbytes,
            "outliers": self.places.nbytes + self.values.nbytes,
        }

    @property
    def nbytes(self) -> int:
        """Bytes of everything."""
        return sum(self.bytes_by_part().values())

    def levels(self) -> np.ndarray:
        """Return D with the low end of its group where an outlier lies: float32 (batch, heads, tokens, d)."""
        n = self.tokens if self.by_channel else self.d
        codes = unpack_bits(self.codes, self.bits, n)
        if self.by_channel:
            group = np.arange(n) // self.group
            found = codes * self._wide(self.scale)[..., group] + self._wide(self.zero)[..., group]
            return self._in_a_row(np.swapaxes(found, -1, -2))
        group = np.arange(self.heads * self.d) // self.group
        if self.scale.shape[2] != 1:  # groups of each head: over all channels they are counted on
            scale, zero = (np.swapaxes(self._wide(x), 2, 3).reshape(*x.shape[:2], self.tokens, -1)
                           for x in (self.scale, self.zero))  # fmt: skip
        else:
            scale, zero = self._wide(self.scale)[:, :, 0], self._wide(self.zero)[:, :, 0]
        shape = (*scale.shape[:3], self.heads, self.d)
        scale, zero = (np.swapaxes(x[..., group].reshape(shape), 2, 3) for x in (scale, zero))
        return self._in_a_row(codes * scale + zero)

    def outlier_mask(self) -> np.ndarray:
        """Return bool (batch, heads, tokens, d), True where an outlier lies."""
        return self._scattered(np.ones(self.places.shape, bool))

    def dense(self, *, low_rank=True, outliers=True) -> np.ndarray:
        """Return what the blocks stand for: float32 (batch, heads, tokens, d); either correction may be left out."""
        found = self.levels()
        if outliers and self.places.size:
            found = np.where(self.outlier_mask(), self._scattered(self._wide(self.values)), found)
        return found + self.low_rank() if low_rank and self.rank else found

    def low_rank(self) -> np.ndarray:
        """Return A B^T: float32 (batch, heads, tokens, d)."""
        factor = self._wide(self.factor)[..., : self.tokens]
        return self._in_a_row(np.swapaxes(factor, -1, -2) @ self._wide(self.basis))

    def sparse(self) -> np.ndarray:
        """Return S: float32 (batch, heads, tokens, d), 0 where no outlier lies."""
        return self._scattered(self._wide(self.values))

    @staticmethod
    def _wide(x):
        return x.astype(np.float32)

    def _in_a_row(self, x):
        """(blocks, batch, heads, tokens, d) -> (batch, heads, blocks * tokens, d)."""
        return np.ascontiguousarray(np.moveaxis(x, 0, 2)).reshape(self.batch, self.heads, self.length, self.d)

    def _scattered(self, values):
        lead, places = self.places.shape[:2], self.places.astype(np.int64)
        if self.kind == "key":
            found = np.zeros((*lead, self.heads, self.d, self.tokens), values.dtype)
            np.put_along_axis(found, places, values, -1)
            return self._in_a_row(np.swapaxes(found, -1, -2))
        found = np.zeros((*lead, self.tokens, self.heads * self.d), values.dtype)
        np.put_along_axis(found, places, values, -1)
        return self._in_a_row(np.swapaxes(found.reshape(*lead, self.tokens, self.heads, self.d), 2, 3))

    def handed_over(self) -> tuple:
        """Return what the loops read, in the order of ``blocks_of`` in quantised_decode.cpp."""
        halves = (self.scale, self.zero, self.factor, self.basis)
        return (
            self.count, self.tokens, self.group, self.bits, self.rank, self.places.shape[-1], int(self.by_channel),
            self.scale.shape[2], self.scale.shape[-1], self.factor.shape[2], self.codes,
            *(x.view(np.uint16) for x in halves), self.places, self.values.view(np.uint16),
        )  # fmt: skip
