"""The storage formats that the explorer compares: one entry each in `FORMATS`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from kernels.formats import storage
from kernels.formats.block_groups import BlockGroupedWeight
from kernels.formats.nm_packed import NMPacked
from kernels.formats.tiled_csl import TiledCSL
from widgets.figures.weight_format import PADDING, Banks, Kernel, StoredWeight

__all__ = ["FORMATS", "Choice", "Format", "store"]

LANES, BANKS = 32, 32  # of a GPU's warp and of its on-chip memory
VECTOR = 4  # words that tiled-CSL loads at once, as published
WORD = 16  # places that one mask of a bitmap covers
_FMA = "fused multiply-add"
_DOT = {8: ("vpdpbusd", 4), 16: ("vdpbf16ps", 2), 32: (_FMA, 1)}  # by bits of a value: instruction, products it adds
_BY_ROWS = {"accumulators": 8, "weight in every lane": 1}
_BY_TILES = {"accumulators (4 rows x 4)": 16, "weights": 4, "activations": 4}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a reader chose about formats.

    Parameters
    ----------
    value_bits : bits of a stored value.
    block : (br, bc) of block CSR.
    nm : (n, m), n of every m.
    tile : (rows, columns) of a tile of tiled-CSL; 128 x 64 as published.
    reorder : whether the words of tiled-CSL are dealt over the banks.
    """

    value_bits: int = 8
    block: tuple[int, int] = (4, 4)
    nm: tuple[int, int] = (2, 4)
    tile: tuple[int, int] = (128, 64)
    reorder: bool = True


@dataclass(frozen=True, kw_only=True)
class Format:
    """One storage format.

    Parameters
    ----------
    key, label : in links, and what readers see; the label may hold ``{block}`` and ``{nm}``.
    store : (weight float32 (m, k), choice) -> the fields of a `StoredWeight` except key and label.
    misfit : (weight, choice) -> why this format cannot hold the weight, a sentence, or "".
    """

    key: str
    label: str
    store: Callable[[np.ndarray, Choice], dict]
    misfit: Callable[[np.ndarray, Choice], str] = lambda weight, choice: ""

    def named(self, choice: Choice) -> str:
        """Return the label with what the reader chose."""
        return self.label.format(block="{} x {}".format(*choice.block), nm="{}:{}".format(*choice.nm))


def store(weight: np.ndarray, choice: Choice) -> tuple[tuple[StoredWeight, ...], tuple[str, ...]]:
    """Return the weight in every format that can hold it, and why the others cannot.

    Parameters
    ----------
    weight : float32 (m, k), every value exact in half precision.
    """
    stored, left_out = [], []
    for form in FORMATS:
        why = form.misfit(weight, choice)
        if why:
            left_out.append(f"{form.named(choice)}: {why}")
        else:
            stored.append(StoredWeight(key=form.key, label=form.named(choice), **form.store(weight, choice)))
    return tuple(stored), tuple(left_out)


def _bits(total, values=0, indices=0, padding=0):
    """Return the bits of each kind; what the others leave of the total are pointers."""
    return {"values": values, "indices": indices, "pointers": total - values - indices - padding, PADDING: padding}


def _edges(counts):
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _none():
    return np.zeros(0, np.int64)


def _dense(weight, choice):
    (m, k), nnz = weight.shape, np.count_nonzero(weight)
    row, column = (x.ravel().astype(np.int32) for x in np.indices(weight.shape))
    tile = row // 4 * -(-k // 4) + column // 4
    read = np.lexsort((column, row, tile))
    counts = np.bincount(tile)
    return {
        "about": "Dense: every place of the matrix, row by row.",
        "bits": _bits(
            storage.dense_bits(weight.shape, value_bits=choice.value_bits),
            nnz * choice.value_bits,
            padding=(m * k - nnz) * choice.value_bits,
        ),
        "row": row,
        "column": column,
        "value": weight.ravel(),
        "index": _none(),
        "pointer": _none(),
        "read": read,
        "value_edges": _edges(counts),
        "index_edges": _edges(np.zeros_like(counts)),
        "unit": "tile of 4 x 4",
        "index_bits": 0,
        "line": min(16, max(k, 1)),
        "index_line": 16,
        "multiply_adds": m * k,
        "kernel": _tile_kernel(choice.value_bits, "neighbouring inputs"),
    }


def _tile_kernel(value_bits, inputs):
    """Return the kernel that multiplies 4 outputs by 4 inputs at a time."""
    instruction, dot = _DOT[value_bits]
    adds = f"multiplies {dot} of their numbers with {dot} weights of a row in each of 16 lanes and adds the products"
    return Kernel(
        about=f"The kernel multiplies 4 outputs by 4 {inputs} at a time: it interleaves their rows of activations, and "
        f"{instruction} {adds if dot > 1 else 'multiplies one of them with a weight in each of 16 lanes'}.",
        instruction=instruction, vectors=4, dot=dot, registers=_BY_TILES,
    )  # fmt: skip


def _csr(index_bits):
    def stored(weight, choice):
        csr, bits = sparse.csr_array(weight), choice.value_bits
        nnz = csr.nnz
        return {
            "about": f"CSR: the weights of each row, a column index of {index_bits} bits beside each, and where rows "
            "begin.",
            "bits": _bits(
                storage.csr_bits(weight.shape, nnz, value_bits=bits, index_bits=index_bits),
                nnz * bits,
                nnz * index_bits,
            ),
            "row": np.repeat(np.arange(weight.shape[0], dtype=np.int32), np.diff(csr.indptr)),
            "column": csr.indices.astype(np.int32),
            "value": csr.data,
            "index": csr.indices.astype(np.int64),
            "pointer": csr.indptr.astype(np.int64),
            "read": np.arange(nnz),
            "value_edges": np.arange(nnz + 1),
            "index_edges": np.arange(nnz + 1),
            "unit": "entry",
            "index_bits": index_bits,
            "line": 8,
            "index_line": 8,
            "multiply_adds": nnz,
            "kernel": Kernel(
                about="The kernel spreads one weight over all lanes and fetches the row of activations that the index "
                "names: every multiply-add waits for a load.",
                instruction=_FMA,
                vectors=8,
                registers=_BY_ROWS,
            ),
        }

    return stored


def _bitmap(weight, choice):
    (m, k), nnz, bits = weight.shape, np.count_nonzero(weight), choice.value_bits
    row, column = (x.astype(np.int32) for x in np.nonzero(weight))
    words = -(-k // WORD)
    counts = np.bincount(row * words + column // WORD, minlength=m * words)
    widths = np.tile(np.minimum(np.arange(1, words + 1) * WORD, k) - np.arange(words) * WORD, m)
    return {
        "about": "Bitmap: the weights row by row, and one bit for every place of the matrix.",
        "bits": _bits(storage.bitmap_bits(weight.shape, nnz, value_bits=bits), nnz * bits, m * k),
        "row": row,
        "column": column,
        "value": weight[row, column],
        "index": (weight != 0).ravel().astype(np.int64),
        "pointer": _none(),
        "read": np.arange(nnz),
        "value_edges": _edges(counts),
        "index_edges": _edges(widths),
        "unit": f"mask of {WORD} places",
        "index_bits": 1,
        "line": 8,
        "index_line": WORD,
        "multiply_adds": nnz,
        "kernel": Kernel(
            about="No kernel of the workbench reads it. AVX-512 would take 16 bits as a mask and expand the weights "
            "that follow into a register (vexpandps); where the next ones begin takes a count of ones.",
            instruction=_FMA,
            vectors=8,
            registers=_BY_ROWS | {"expanded weights": 1},
        ),
    }


def _blocks(weight, choice):
    (br, bc), bits = choice.block, choice.value_bits
    held = BlockGroupedWeight.from_dense(weight, block=choice.block, group=1)
    blocks, nnz = held.nnz_blocks, np.count_nonzero(weight)
    places = _block_places(held, bc)
    tile = min(br, 4)
    return {
        "about": f"Block CSR: every {br} x {bc} block that holds a weight, dense, with one column index of 32 bits.",
        "bits": _bits(
            storage.bsr_bits(weight.shape, blocks, block=choice.block, value_bits=bits),
            nnz * bits,
            32 * blocks,
            (blocks * br * bc - nnz) * bits,
        ),
        "row": places[0],
        "column": places[1],
        "value": held.data.ravel(),
        "index": held.indices.astype(np.int64),
        "pointer": held.indptr,
        "read": np.arange(held.data.size),
        "value_edges": np.arange(blocks + 1) * (br * bc),
        "index_edges": np.arange(blocks + 1),
        "unit": f"block of {br} x {bc}",
        "index_bits": 32,
        "line": br * bc,
        "index_line": 8,
        "multiply_adds": held.data.size,
        "kernel": Kernel(
            about="The kernel keeps up to 4 rows of a block in registers and loads a row of activations for each "
            "column of the block; rows of a block share it.",
            instruction=_FMA,
            vectors=4,
            registers={
                f"accumulators ({tile} {'rows' if tile > 1 else 'row'} x 4)": 4 * tile,
                "weight in every lane": 1,
                "activations": 4,
            },
        ),
    }


def _groups(weight, choice):
    bits = choice.value_bits
    held = BlockGroupedWeight.from_dense(weight, block=(4, 1), group=4)
    nnz, index_bits, groups = np.count_nonzero(weight), 8 * held.indices.itemsize, len(held.data)
    row, column = _block_places(held, 1)
    by_group = held.indices.reshape(-1, 4)
    filling = np.zeros(by_group.shape, bool)
    filling[:, 1:] = by_group[:, 1:] == by_group[:, :-1]
    row[np.repeat(filling[:, None], 4, axis=1).ravel()] = -1
    column[row < 0] = -1
    counts = np.bincount(np.repeat(np.arange(len(held.indptr) - 1), np.diff(held.indptr)), (~filling).sum(axis=1),
                         minlength=len(held.indptr) - 1).astype(int)  # fmt: skip
    total = storage.block_group_bits(counts.tolist(), value_bits=bits, index_bits=index_bits)
    zeros = 4 * held.nnz_blocks - nnz
    return {
        "about": "Groups of 4 x 1 blocks: every block of 4 outputs by 1 input that holds a weight, 4 of them together "
        f"with their {index_bits}-bit columns; a short last group is filled up with blocks of zeros.",
        "bits": _bits(
            total, nnz * bits, held.nnz_blocks * index_bits, zeros * bits + held.padding * (4 * bits + index_bits)
        ),
        "row": row,
        "column": column,
        "value": held.data.ravel(),
        "index": held.indices.astype(np.int64),
        "pointer": held.indptr,
        "read": np.arange(held.data.size),
        "value_edges": np.arange(groups + 1) * 16,
        "index_edges": np.arange(groups + 1) * 4,
        "unit": "group of 4 blocks",
        "index_bits": index_bits,
        "line": 16,
        "index_line": 4,
        "multiply_adds": held.data.size,
        "kernel": _tile_kernel(choice.value_bits, "inputs that a group names"),
    }


def _block_places(held, bc):
    """Return row and column of every stored value, int32 each."""
    br, group = held.block[0], held.group
    of_group = np.repeat(np.arange(len(held.indptr) - 1, dtype=np.int32), np.diff(held.indptr))
    row = np.broadcast_to((of_group[:, None] * br + np.arange(br))[:, :, None], (len(of_group), br, group * bc))
    first = held.indices.astype(np.int32).reshape(-1, group, 1) * bc + np.arange(bc)
    column = np.broadcast_to(first.reshape(-1, 1, group * bc), row.shape)
    return row.ravel().astype(np.int32), column.ravel().astype(np.int32)


def _nm(weight, choice):
    (_m, k), (n, of), bits = weight.shape, choice.nm, choice.value_bits
    held = NMPacked.from_dense(weight, n, of)
    value, place, nnz = held.values.ravel(), held.positions.ravel().astype(np.int64), np.count_nonzero(weight)
    group = np.arange(len(value)) // n
    total = storage.nm_bits(weight.shape, n, of, value_bits=bits)
    width = total // max(len(value), 1) - bits
    return {
        "about": f"{n}:{of}: {n} values of every {of} neighbours of a row, and for each its place among them in "
        f"{width} bits; no pointers are needed.",
        "bits": _bits(total, nnz * bits, nnz * width, (len(value) - nnz) * (bits + width)),
        "row": (group * of // max(k, 1)).astype(np.int32),
        "column": (group * of % max(k, 1) + place).astype(np.int32),
        "value": value,
        "index": place,
        "pointer": _none(),
        "read": np.arange(len(value)),
        "value_edges": np.arange(0, len(value) + 1, n),
        "index_edges": np.arange(0, len(value) + 1, n),
        "unit": f"{n} of {of}",
        "index_bits": width,
        "line": 8 * n,
        "index_line": 8 * n,
        "multiply_adds": len(value),
        "choice": of,
        "kernel": Kernel(
            about=f"The index picks {n} of {of} neighbouring rows of activations, which all lie near each other; "
            "matrix units of some GPUs do so for 2:4 at twice their dense speed.",
            instruction=_FMA,
            vectors=8,
            registers=_BY_ROWS,
        ),
    }


def _nm_misfit(weight, choice):
    (n, m), columns = choice.nm, weight.shape[1]
    if columns % m:
        return f"{columns:,} columns are no multiple of {m}."
    most = int(np.count_nonzero(weight.reshape(-1, m), axis=1).max(initial=0))
    return f"some {m} neighbours keep {most} weights; choose the pattern {n}:{m}." if most > n else ""


def _tiled_csl(weight, choice):
    (tile_m, tile_k), (m, k) = choice.tile, weight.shape
    held, other = (TiledCSL.encode(weight, tile_m, tile_k, VECTOR, reorder=order, pad=True)
                   for order in (choice.reorder, not choice.reorder))  # fmt: skip
    across = -(-k // tile_k)
    vectors = np.diff(held.tile_offsets[:-1].astype(np.int64))
    turns = -(-vectors // LANES)  # of all lanes
    tile = np.repeat(np.arange(len(vectors)), vectors * VECTOR)
    word = np.arange(len(held.nz)) - held.tile_offsets[tile].astype(np.int64) * VECTOR
    step = (_edges(turns)[tile] + word // (LANES * VECTOR)) * VECTOR + word % VECTOR
    lane = word // VECTOR % LANES
    steps = int(turns.sum()) * VECTOR
    row, column = _csl_places(held, tile, across)
    rows, columns = np.nonzero(weight)
    tile_nnz = np.bincount(rows // tile_m * across + columns // tile_k, minlength=len(vectors))
    total, nnz = storage.tiled_csl_bits(tile_nnz.tolist(), vector=VECTOR), held.nnz

    def banks(words):
        found = np.full((steps, LANES), -1, np.int8)
        found[step, lane] = (words.nz >> 17) % BANKS
        return found

    order: Literal["dealt", "plain"] = "dealt" if choice.reorder else "plain"
    pair = {order: banks(held), ("plain" if choice.reorder else "dealt"): banks(other)}
    return {
        "about": f"Tiled-CSL: words of 32 bits, 16 for a weight and 16 for its place in a tile of {tile_m} x {tile_k}; "
        f"each tile is filled up to whole vectors of {VECTOR} words.",
        "bits": _bits(total, 16 * nnz, 16 * nnz, 32 * (len(held.nz) - nnz)),
        "row": row,
        "column": column,
        "value": (held.nz & 0xFFFF).astype(np.uint16).view(np.float16).astype(np.float32),
        "index": _none(),
        "pointer": held.tile_offsets.astype(np.int64),
        "read": np.lexsort((lane, step)),
        "value_edges": _edges(np.bincount(step, minlength=steps)),
        "index_edges": np.zeros(steps + 1, np.int64),
        "unit": "word a lane",
        "index_bits": 0,
        "line": VECTOR,
        "index_line": VECTOR,
        "multiply_adds": m * k,
        "kernel": Kernel(
            about="A GPU loads the words, stores each weight to its place in a dense tile on the chip, and multiplies "
            "that tile like a dense one: 32 lanes store at once, and words that meet in one bank wait for each other.",
            instruction="matrix instruction",
        ),
        "banks": Banks(order=order, **pair),
    }


def _csl_places(held, tile, across):
    """Return row and column of every word, -1 for those of zero that lie outside the matrix."""
    place = (held.nz >> 16).astype(np.int64)
    within = place // held.tile_k
    row = tile // max(across, 1) * held.tile_m + within
    column = tile % max(across, 1) * held.tile_k + ((place % held.tile_k) ^ (within % 8 * 8))
    outside = (row >= held.shape[0]) | (column >= held.shape[1])
    return (np.where(outside, -1, x).astype(np.int32) for x in (row, column))


def _csl_misfit(weight, choice):
    if choice.value_bits != 16:
        return "its words hold values of 16 bits; choose 16 bits a value."
    (tile_m, tile_k), most = choice.tile, 2**16
    if tile_k < 64 or tile_k & (tile_k - 1):
        return f"a tile has a power of two of columns, at least 64, not {tile_k:,}."
    fits = f"a tile of {tile_m:,} x {tile_k:,} has more than the {most:,} places that 16 bits tell apart."
    return fits if tile_m * tile_k > most else ""


def _divided(sides):
    """Return the misfit of a format whose blocks must divide the matrix."""

    def misfit(weight, choice):
        (m, k), (br, bc) = weight.shape, sides(choice)
        return f"{m:,} x {k:,} is not made of whole {br} x {bc} blocks." if m % br or k % bc else ""

    return misfit


def _narrow(weight, choice):
    return "" if weight.shape[1] <= 2**16 else f"{weight.shape[1]:,} columns are more than 16 bits tell apart."


FORMATS = (
    Format(key="dense", label="dense", store=_dense),
    Format(key="csr32", label="CSR, 32-bit indices", store=_csr(32)),
    Format(key="csr16", label="CSR, 16-bit indices", store=_csr(16), misfit=_narrow),
    Format(key="bitmap", label="bitmap", store=_bitmap),
    Format(key="bsr", label="block CSR, {block}", store=_blocks, misfit=_divided(lambda choice: choice.block)),
    Format(key="groups", label="groups of 4 x 1 blocks", store=_groups, misfit=_divided(lambda choice: (4, 1))),
    Format(key="nm", label="{nm}", store=_nm, misfit=_nm_misfit),
    Format(key="tiled_csl", label="tiled-CSL", store=_tiled_csl, misfit=_csl_misfit),
)
