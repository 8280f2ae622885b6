"""y[.., k, o] = sum over i of w[k, o, i] x[.., k, i]: products with block-diagonal matrices, one or a chain of them.

A stage of a chain acts along one axis of x. With the features of x seen as (a, i, c), where c runs over ``inner``
numbers,

    y[.., a, o, c] = sum over i of w[a inner + c, o, i] x[.., a, i, c]

so that ``inner = 1`` is a block-diagonal matrix, and any other ``inner`` one between two permutations that are only a
way of counting. All permutations of a chain are part of how its stages read and write; nothing is permuted in memory.
"""

import math

import numpy as np

from kernels._native import core
from kernels.check import as_int, check_array, check_threads, is_plain
from kernels.work import Work

__all__ = [
    "block_chain_gradient",
    "block_chain_multiply",
    "block_chain_multiply_reference",
    "block_diagonal_gradient",
    "block_diagonal_multiply",
    "block_diagonal_multiply_reference",
    "block_diagonal_work",
]

NUMBERS = (np.float32, np.float64, np.complex64, np.complex128)
_KINDS = frozenset(map(np.dtype, NUMBERS))


def block_diagonal_multiply(x, w, *, inner=1, num_threads=None) -> np.ndarray:
    """Multiply every row of x with a block-diagonal matrix, whose blocks may have any one shape.

    Parameters
    ----------
    x : (..., a * i * inner) float32, float64, complex64 or complex128, C-contiguous.
    w : (a * inner, o, i) of the dtype of x, C-contiguous: the blocks, each as a linear layer holds its weight.
    inner : numbers that stand between two neighbours of one block, at least 1. With 1 a block reads neighbours.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (..., a * o * inner) of the dtype of x.

    Raises
    ------
    TypeError : a dtype is none of the four, or those of x and w differ.
    ValueError : shapes do not fit, inner does not divide the number of blocks, or an operand is not C-contiguous.

    Cost
    ----
    2 o i a inner flops a row, four times as many where numbers are complex.

    Source
    ------
    The building block of Dao et al. 2022, "Monarch: Expressive Structured Matrices", Definition 3.1.
    """
    name = "block_diagonal_multiply"
    check_numbers(x, function=name, name="x")
    w = check_blocks(w, function=name, name="w", dtype=x.dtype)
    inner = as_int(inner, function=name, name="inner", low=1)
    return _chain(name, x, (w,), (inner,), num_threads, ("w",))


def block_diagonal_multiply_reference(x, w, inner=1) -> np.ndarray:
    """Multiply block by block in double precision, the way the formula reads."""
    blocks, o, i = w.shape
    wide = np.result_type(x.dtype, np.float64)
    seen = x.reshape(*x.shape[:-1], blocks // inner, i, inner).astype(wide)
    y = np.einsum("acoi,...aic->...aoc", w.reshape(blocks // inner, inner, o, i).astype(wide), seen)
    return y.reshape(*x.shape[:-1], blocks * o)


def block_diagonal_work(blocks: int, out: int, width: int, rows: int, *, itemsize: int = 4, parts: int = 1) -> Work:
    """Count the work for ``rows`` rows: blocks, x and y streamed once.

    Parameters
    ----------
    blocks, out, width : the shape of w.
    rows : rows of x, at least 0.
    itemsize : bytes of a real part.
    parts : 2 where numbers are complex, else 1.
    """
    name = "block_diagonal_work"
    given = {"blocks": blocks, "out": out, "width": width, "rows": rows}
    blocks, out, width, rows = (as_int(v, function=name, name=k, low=0) for k, v in given.items())
    itemsize = as_int(itemsize, function=name, name="itemsize", low=1)
    parts = as_int(parts, function=name, name="parts", low=1, high=2)
    size = blocks * out * width
    moved = itemsize * parts * (size + rows * blocks * (out + width))
    return Work(flops=2 * parts * parts * rows * size, bytes_streamed=moved, gathers=0)


def block_diagonal_gradient(x, g, shape, *, inner=1, num_threads=None) -> np.ndarray:
    """Compute the gradient of the blocks: sum over rows of g[.., a, o, c] conj(x[.., a, i, c]).

    Parameters
    ----------
    x : (..., a * i * inner), what was multiplied; float32, float64, complex64 or complex128, C-contiguous.
    g : (..., a * o * inner) of the dtype of x, the gradient of the product.
    shape : (a * inner, o, i), the shape of the blocks.
    inner : as in `block_diagonal_multiply`.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    ``shape``, of the dtype of x. Complex numbers follow the convention of torch: the conjugate stands on x. The
    gradient of x itself is `block_diagonal_multiply` of g with the blocks transposed and conjugated.

    Raises
    ------
    TypeError, ValueError : as `block_diagonal_multiply`.

    Cost
    ----
    As `block_diagonal_multiply`.

    Source
    ------
    The transposed product; Dao et al. 2022, section 3.1, trains with it.
    """
    name = "block_diagonal_gradient"
    check_numbers(x, function=name, name="x")
    check_numbers(g, function=name, name="g", dtype=x.dtype)
    blocks, o, i = _as_shape(shape, name)
    inner = as_int(inner, function=name, name="inner", low=1)
    threads = check_threads(num_threads, function=name)
    if blocks % inner:
        raise ValueError(f"{name}: inner is {inner}, which does not divide the {blocks} blocks of shape")
    for what, array, width in (("x", x, blocks * i), ("g", g, blocks * o)):
        if array.shape[-1] != width:
            raise ValueError(f"{name}: {what} has {array.shape[-1]} columns, {blocks} blocks of {o} x {i} need {width}")
    if x.shape[:-1] != g.shape[:-1]:
        raise ValueError(f"{name}: x has rows {x.shape[:-1]}, g has {g.shape[:-1]}; they must be equal")
    if 0 in (blocks, o, i) or 0 in x.shape:
        return np.zeros((blocks, o, i), x.dtype)
    out = np.empty((blocks, o, i), x.dtype)
    core.block_gradient(x.reshape(-1, blocks * i), g.reshape(-1, blocks * o), inner, out, threads)
    return out


def block_chain_multiply(x, weights, inner, *, num_threads=None) -> np.ndarray:
    """Multiply every row of x with several block-diagonal matrices in turn, each along its own axis.

    Parameters
    ----------
    x : (..., n) float32, float64, complex64 or complex128, C-contiguous.
    weights : one to 64 arrays (blocks, o, i) of the dtype of x, the first to be applied first.
    inner : one int for each of them, as in `block_diagonal_multiply`; each divides its number of blocks.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (..., blocks * o) of the last of the weights. Between stages a panel of rows stays in cache.

    Raises
    ------
    TypeError, ValueError : as `block_diagonal_multiply`; also if one stage's output is not as wide as the next reads.

    Cost
    ----
    The sum of its stages.

    Source
    ------
    Dao et al. 2022, Definition 3.1 (two stages) and Appendix (more).
    """
    name = "block_chain_multiply"
    check_numbers(x, function=name, name="x")
    parts, steps, labels = _stages(name, x, weights, inner)
    return _chain(name, x, parts, steps, num_threads, labels)


def block_chain_multiply_reference(x, weights, inner) -> np.ndarray:
    """Apply one stage after the other in double precision."""
    for w, step in zip(weights, inner, strict=True):
        x = block_diagonal_multiply_reference(x, w, step)
    return x


def block_chain_gradient(x, weights, inner, g, *, num_threads=None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Compute the gradients of `block_chain_multiply` with respect to x and to each of the weights.

    Parameters
    ----------
    x, weights, inner : what was multiplied.
    g : the gradient of the product, of its shape and of the dtype of x, C-contiguous.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (gradient of x, list of the gradients of the weights), in the convention of torch where numbers are complex.

    Raises
    ------
    TypeError, ValueError : as `block_chain_multiply`; also if g has another shape than the product.

    Cost
    ----
    Three times `block_chain_multiply`: what the stages read is computed again, then one product each for x and weights.

    Source
    ------
    The chain rule.
    """
    name = "block_chain_gradient"
    check_numbers(x, function=name, name="x")
    check_numbers(g, function=name, name="g", dtype=x.dtype)
    parts, steps, _ = _stages(name, x, weights, inner)
    read = [x]
    for w, step in zip(parts[:-1], steps[:-1], strict=True):
        read.append(block_diagonal_multiply(read[-1], w, inner=step, num_threads=num_threads))
    wanted = (*x.shape[:-1], parts[-1].shape[0] * parts[-1].shape[1])
    if g.shape != wanted:
        raise ValueError(f"{name}: g has shape {g.shape}, the product has {wanted}; they must be equal")
    gradients = []
    for w, step, given in zip(reversed(parts), reversed(steps), reversed(read), strict=True):
        gradients.append(block_diagonal_gradient(given, g, w.shape, inner=step, num_threads=num_threads))
        turned = np.ascontiguousarray(w.conj().transpose(0, 2, 1))
        g = block_diagonal_multiply(g, turned, inner=step, num_threads=num_threads)
    return g, gradients[::-1]


def check_numbers(x, *, function, name, dtype=None):
    """Check an array (..., n) of real or complex floats, C-contiguous, of ``dtype`` where that is given."""
    if not (is_plain(x) and (x.dtype in _KINDS if dtype is None else x.dtype == dtype)):
        check_array(x, function=function, name=name, dtypes=NUMBERS if dtype is None else (dtype,))
    if x.ndim == 0:
        raise ValueError(f"{function}: {name} must have at least one dimension; pass {name}.reshape(1)")
    if not (x.flags.c_contiguous and x.flags.aligned):
        raise ValueError(f"{function}: {name} must be C-contiguous and aligned; pass np.ascontiguousarray({name})")


def check_blocks(w, *, function, name, dtype):
    """Return blocks (blocks, o, i) after checking their dtype, their order in memory and their number of dimensions."""
    check_numbers(w, function=function, name=name, dtype=dtype)
    if w.ndim != 3:
        raise ValueError(f"{function}: {name} must have shape (blocks, out, in), got {w.shape}")
    return w


def _as_shape(shape, name):
    if not isinstance(shape, (list, tuple)) or len(shape) != 3:
        raise ValueError(f"{name}: shape must be three ints (blocks, out, in), got {shape!r}"[:200])
    sides = [as_int(side, function=name, name="each of shape", low=0) for side in shape]
    if sides[0] * max(sides[1], 1) * max(sides[2], 1) > 2**40:
        raise ValueError(f"{name}: shape asks for more than 2^40 numbers, got {tuple(sides)}")
    return sides


def _stages(name, x, weights, inner):
    if not isinstance(weights, (list, tuple)) or not 1 <= len(weights) <= 64:
        got = f"{len(weights)} of them" if isinstance(weights, (list, tuple)) else type(weights).__name__
        raise ValueError(f"{name}: weights must be a list of 1 to 64 arrays (blocks, o, i), got {got}")
    if not isinstance(inner, (list, tuple)) or len(inner) != len(weights):
        raise ValueError(f"{name}: inner must be a list of {len(weights)} ints, one for each of weights, got {inner!r}")
    labels = [f"weights[{t}]" for t in range(len(weights))]
    parts = [check_blocks(w, function=name, name=n, dtype=x.dtype) for w, n in zip(weights, labels, strict=True)]
    steps = [as_int(s, function=name, name="each of inner", low=1) for s in inner]
    _width(name, x, parts, steps, labels)
    return parts, steps, labels


def _width(name, x, weights, inner, labels):
    """Return how many numbers the last stage writes, after checking that each reads what the one before it writes."""
    width = x.shape[-1]
    for w, step, label in zip(weights, inner, labels, strict=True):
        blocks, o, i = w.shape
        if blocks % step:
            raise ValueError(f"{name}: inner is {step}, which does not divide the {blocks} blocks of {label}")
        if blocks * i != width:
            raise ValueError(
                f"{name}: {label} has {blocks} blocks of {o} x {i}, which read {blocks * i} numbers, but get {width}"
            )
        width = blocks * o
    return width


def _chain(name, x, weights, inner, num_threads, labels):
    threads = check_threads(num_threads, function=name)
    width = _width(name, x, weights, inner, labels)
    y = np.empty((*x.shape[:-1], width), x.dtype)
    if y.size == 0:
        return y
    if any(0 in w.shape for w in weights):
        y.fill(0)
        return y
    rows = math.prod(x.shape[:-1])
    core.block_chain(x.reshape(rows, -1), list(weights), list(inner), y.reshape(rows, -1), threads)
    return y
