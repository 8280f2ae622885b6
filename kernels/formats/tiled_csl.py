"""Tiled-CSL: the nonzeros of each tile of a half-precision matrix as words of 32 bits.

A word holds a value in its low 16 bits and in its high 16 bits the value's position in the tile, r tile_k + c', where
c' = c XOR 8 (r mod 8) spreads the columns of neighbouring rows over the banks of a GPU's on-chip memory.
"""

from dataclasses import dataclass, field

import numpy as np

from kernels._native import core
from kernels.check import as_int, as_ints, check_array, unchangeable_copy

__all__ = ["TiledCSL", "encode_reference"]

BANKS = LANES = 32  # of a GPU's on-chip memory, and of the threads that store at once
_FAULTS = {
    1: "lies at position {position}, must be below {size}",
    2: "is not the only one at position {position} of its tile",
    3: "holds infinity or NaN",
    4: "is not zero and lies outside the matrix",
}


@dataclass(frozen=True, eq=False)
class TiledCSL:
    """A half-precision matrix as the nonzeros of its tiles.

    Tiles follow each other row by row. The words of each are filled up to whole vectors by words of value zero, at
    places where the tile is zero. Arrays are copied, and nobody can write to the copies: kernels trust them.

    Parameters
    ----------
    nz : uint32 (padded_nnz,), the words; values are finite.
    tile_offsets : int32 (tiles + 2,), where each tile begins, counted in vectors; the last value stands twice, as if an
        empty tile followed.
    shape : (m, k) of the matrix; tiles in the last row and column may stick out.
    tile_m, tile_k : rows and columns of a tile, at most 65,536 places in all; tile_k is a power of two of at least 64.
    vector : words that are loaded at once; divides the places of a tile.

    Source
    ------
    Xia et al. 2023, "Flash-LLM", section 4.1 to 4.3 and the released encoder, whose bytes `encode` gives for tiles of
    128 x 64 and vectors of 4. *Differs from the paper:* other tiles, and matrices that no whole tiles fill.
    """

    nz: np.ndarray
    tile_offsets: np.ndarray
    shape: tuple[int, int]
    tile_m: int = 128
    tile_k: int = 64
    vector: int = 4
    nnz: int = field(init=False)
    row_ends: np.ndarray | None = field(init=False, repr=False)
    """Words of a tile up to the end of each of its rows, int32 (tiles tile_m,), if the words lie row by row.

    Derived, not part of the format: 4 tile_m bytes a tile."""

    def __post_init__(self):
        for name, dtype in (("nz", np.uint32), ("tile_offsets", np.int32)):
            found = getattr(self, name)
            check_array(found, function="TiledCSL", name=name, dtypes=(dtype,))
            if found.ndim != 1:
                raise ValueError(f"TiledCSL: {name} must have one dimension, got {found.ndim}")
            object.__setattr__(self, name, unchangeable_copy(found))
        m, k = as_ints(self.shape, 2, function="TiledCSL", name="shape", low=0, high=2**31 - 1)
        tiling = _tiling(self.tile_m, self.tile_k, self.vector, "TiledCSL")
        for name, value in zip(("shape", "tile_m", "tile_k", "vector"), ((m, k), *tiling), strict=True):
            object.__setattr__(self, name, value)
        self._check_offsets(-(-m // self.tile_m) * -(-k // self.tile_k))
        fault, where, nnz, in_rows = core.tiled_csl_check(self.nz, self.tile_offsets, m, k, *tiling)
        if fault:
            told = _FAULTS[fault].format(position=self.nz[where] >> 16, size=self.tile_m * self.tile_k)
            raise ValueError(f"TiledCSL: nz[{where}] {told}; let TiledCSL.encode make the words")
        ends = None
        if in_rows:
            ends = np.empty((len(self.tile_offsets) - 2) * self.tile_m, np.int32)
            core.tiled_csl_row_ends(self.nz, self.tile_offsets, *tiling, ends)
            ends = unchangeable_copy(ends)
        object.__setattr__(self, "nnz", nnz)
        object.__setattr__(self, "row_ends", ends)

    def __reduce__(self):
        """Copy and unpickle through the checks, since NumPy would make the arrays writeable."""
        return type(self), (self.nz, self.tile_offsets, self.shape, self.tile_m, self.tile_k, self.vector)

    def _check_offsets(self, tiles):
        offsets, most = self.tile_offsets, self.tile_m * self.tile_k // self.vector
        if len(offsets) != tiles + 2:
            raise ValueError(
                f"TiledCSL: tile_offsets has {len(offsets)} entries, {self.shape} in tiles of {self.tile_m} x "
                f"{self.tile_k} needs {tiles + 2}"
            )
        steps = np.diff(offsets.astype(np.int64))
        if offsets[0] != 0 or steps.min() < 0 or steps.max() > most or steps[-1] != 0:
            raise ValueError(
                f"TiledCSL: tile_offsets must begin at 0, rise by at most {most} a tile and end with one value twice"
            )
        if int(offsets[-1]) * self.vector != len(self.nz):
            raise ValueError(
                f"TiledCSL: nz has {len(self.nz)} words, tile_offsets ends at {offsets[-1]} vectors of {self.vector}"
            )

    @classmethod
    def encode(cls, w, tile_m=128, tile_k=64, vector=4, reorder=True, pad=False) -> "TiledCSL":
        """Encode a dense matrix.

        Parameters
        ----------
        w : (m, k) float16, or float32, which is rounded to half precision; what becomes zero is dropped, -0.0 too.
        tile_m, tile_k, vector : see the class.
        reorder : deal the words of each tile over the banks, so that 32 words stored at once meet few banks twice;
            False leaves them row by row, which suits a CPU.
        pad : let tiles stick out of the matrix; otherwise tile_m must divide m, and tile_k k.

        Raises
        ------
        TypeError : another dtype.
        ValueError : infinity, NaN, or a value that half precision cannot hold; shapes that do not fit; more than
            2^31 - 1 vectors.

        Cost
        ----
        Two passes over w; with ``reorder`` a search over 32 banks for each word.
        """
        check_array(w, function="TiledCSL.encode", name="w", dtypes=(np.float16, np.float32))
        if w.ndim != 2:
            raise ValueError(f"TiledCSL.encode: w must have two dimensions, got {w.ndim}")
        tile_m, tile_k, vector = _tiling(tile_m, tile_k, vector, "TiledCSL.encode")
        if not pad and (w.shape[0] % tile_m or w.shape[1] % tile_k):
            raise ValueError(
                f"TiledCSL.encode: w is {w.shape[0]} x {w.shape[1]}, not whole tiles of {tile_m} x {tile_k}; "
                "use pad=True"
            )
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(w, np.float16)
        if not np.isfinite(half).all():
            raise ValueError(
                "TiledCSL.encode: w must be finite and below 65,520 in magnitude, what half precision holds; scale it"
            )
        bits = half.view(np.uint16)
        counts = np.empty(-(-w.shape[0] // tile_m) * -(-w.shape[1] // tile_k), np.int64)
        core.tiled_csl_count(bits, tile_m, tile_k, counts)
        ends = np.cumsum(-(-counts // vector))
        if len(ends) and ends[-1] > np.iinfo(np.int32).max:
            raise ValueError("TiledCSL.encode: w needs more than 2^31 - 1 vectors; use a larger vector, or split w")
        offsets = np.concatenate([[0], ends, ends[-1:] if len(ends) else [0]]).astype(np.int32)
        nz = np.empty(int(offsets[-1]) * vector, np.uint32)
        core.tiled_csl_encode(bits, tile_m, tile_k, vector, bool(reorder), counts, offsets, nz)
        return cls(nz, offsets, w.shape, tile_m, tile_k, vector)

    def decode(self) -> np.ndarray:
        """Return the matrix, float16 (m, k)."""
        out = np.zeros(self.shape, np.uint16)
        core.tiled_csl_decode(self.nz, self.tile_offsets, self.tile_m, self.tile_k, self.vector, out)
        return out.view(np.float16)

    @property
    def padded_nnz(self) -> int:
        """Words stored, those that fill up vectors included."""
        return len(self.nz)

    @property
    def nbytes(self) -> int:
        """Bytes of the format: 4 for each word and each offset."""
        return self.nz.nbytes + self.tile_offsets.nbytes

    def bank_conflict_degree(self) -> float:
        """Return how many words meet in one bank when 32 lanes store one word each, at the fullest bank.

        Lane b stores word v of its vector at step v, into bank (position / 2) mod 32. The mean over all steps, those of
        a tile's last vectors included: 1 is ideal, 0 stands for a matrix without words.
        """
        vectors = np.diff(self.tile_offsets[:-1].astype(np.int64))
        steps_before = np.cumsum(-(-vectors // LANES)) - -(-vectors // LANES)
        within = np.arange(vectors.sum()) - np.repeat(self.tile_offsets[:-2].astype(np.int64), vectors)
        step = (np.repeat(steps_before, vectors) + within // LANES) * self.vector
        step = (step[:, None] + np.arange(self.vector)).ravel()
        if not len(step):
            return 0.0
        bank = (self.nz >> 17) % BANKS
        return float(
            np.bincount(step * BANKS + bank, minlength=(step[-1] + 1) * BANKS).reshape(-1, BANKS).max(1).mean()
        )


def encode_reference(w, tile_m=128, tile_k=64, vector=4, reorder=True) -> tuple[np.ndarray, np.ndarray]:
    """Return the words and the offsets of float16 ``w``, tile by tile, the way the released encoder works."""
    (m, k), words, offsets = w.shape, [], [0]
    padded = np.zeros((-(-m // tile_m) * tile_m, -(-k // tile_k) * tile_k), np.float16)
    padded[:m, :k] = w
    bits = padded.view(np.uint16)
    for top in range(0, len(bits), tile_m):
        for left in range(0, bits.shape[1], tile_k):
            tile = bits[top : top + tile_m, left : left + tile_k]
            words += (_dealt if reorder else _in_rows)(_places(tile), -np.count_nonzero(tile & 0x7FFF) % vector, vector)
            offsets.append(len(words) // vector)
    return np.array(words, np.uint32), np.array([*offsets, offsets[-1]], np.int32)


def _places(tile):
    """Return (position, bits) of every place of a tile, row by row."""
    rows, columns = tile.shape
    return [(r * columns + (c ^ (r % 8 * 8)), int(tile[r, c])) for r in range(rows) for c in range(columns)]


def _in_rows(places, pads, vector):
    last_zero = max((i for i, (_, x) in enumerate(places) if not x & 0x7FFF), default=None)
    words = []
    for i, (position, x) in enumerate(places):
        words += [position << 16 | x] if x & 0x7FFF else []
        words += [position << 16] * pads if i == last_zero else []
    return words


def _dealt(places, pads, vector):
    banks, zeros = [[] for _ in range(BANKS)], {}
    for position, x in places:
        bank = position // 2 % BANKS
        if x & 0x7FFF:
            banks[bank].append(position << 16 | x)
        else:
            zeros.setdefault(bank, position)
    for _ in range(pads):
        bank = min(range(BANKS), key=lambda b: len(banks[b]))
        banks[bank].append(zeros[bank] << 16)
    rounds, rest = divmod(sum(map(len, banks)) // vector, LANES)
    tail, main = ([[] for _ in range(LANES)] for _ in range(2))
    for lists, lanes, count in ((tail, rest, 1), (main, LANES, rounds)):
        for _ in range(count * vector):
            for lane in range(lanes):
                lists[lane].append(max(banks, key=len).pop())
    words = [main[lane].pop() for _ in range(rounds) for lane in range(LANES) for _ in range(vector)]
    return words + [tail[lane].pop() for lane in range(rest) for _ in range(vector)]


def _tiling(tile_m, tile_k, vector, function):
    tile_m = as_int(tile_m, function=function, name="tile_m", low=1)
    tile_k = as_int(tile_k, function=function, name="tile_k", low=64)
    vector = as_int(vector, function=function, name="vector", low=1)
    if tile_k & (tile_k - 1):
        raise ValueError(f"{function}: tile_k must be a power of two, got {tile_k}")
    if tile_m * tile_k > 65536:
        raise ValueError(
            f"{function}: a tile of {tile_m} x {tile_k} has more places than the 65,536 that 16 bits can tell apart"
        )
    if tile_m * tile_k % vector:
        raise ValueError(f"{function}: vector must divide the {tile_m * tile_k} places of a tile, got {vector}")
    return tile_m, tile_k, vector
