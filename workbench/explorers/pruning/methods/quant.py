"""Rounding to few bits: each group of neighbours of a row has its own range, as GEAR rounds a cache.

Every weight stays, as a code of b bits, with a scale and a low end in half precision for each group. No kernel of ours
multiplies with packed codes of weights, and to unpack them before each product would time the unpacking, so these
points have no measured time.
"""

from math import gcd

from kernels.formats.quantised import dequantize, quantize_groups
from kernels.formats.storage import quantised_bits
from workbench.explorers.pruning.method import VALUE_BITS, Compressed, PruningMethod

GROUP = 64


def bits_of(level) -> int:
    """Return the bits of a code that a level names."""
    found = int(level) if level.isdecimal() else 0
    if not 1 <= found <= 8:
        raise ValueError(f"quant: level must be the bits of a code, from 1 to 8, such as 4, got {level!r}")
    return found


def group_of(shape) -> int:
    """Return how many neighbours share a range: 64, or what divides the row."""
    return gcd(shape[1], GROUP)


def count(shape, level, value_bits):
    """Count codes, scales and low ends, whose bits do not depend on those of a value."""
    bits = bits_of(level)
    codes = quantised_bits(shape, bits, group=group_of(shape), scale_bits=0, zero_bits=0)
    return {"codes": codes, "scales": quantised_bits(shape, bits, group=group_of(shape)) - codes}


def compress(weight, known, level):
    """Round to the nearest level of each group; nothing of the data is asked for."""
    found = quantize_groups(weight, bits_of(level), group=group_of(weight.shape))
    return Compressed(
        weight=dequantize(found),
        kept=None,
        bits=count(weight.shape, level, VALUE_BITS),
        multiply_adds=weight.size,
        pack=None,
    )


METHOD = PruningMethod(
    key="quant", title="Rounded to few bits", levels=("4", "8", "6", "5", "3", "2"), compress=compress,
    source="of caches, Kang et al. 2024, arXiv 2403.05527", count=count, ladder="levels", masks=False,
    note=(
        "Weights rounded to few bits all stay, and take these bits whatever a value is counted as. No kernel here "
        "multiplies with them as they are stored, so they have no time."
    ),
)  # fmt: skip
