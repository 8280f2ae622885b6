"""The methods that the experiments compare, under the names that records bear."""

from dataclasses import replace

from workbench.models.compression.gear import GearConfig

__all__ = ["GEAR", "LOW_RANK", "OUTLIERS", "PLAIN", "VARIANTS", "WINDOW", "config"]

PLAIN, LOW_RANK, OUTLIERS, GEAR = "quantiser alone", "with low rank", "with outliers", "with both"
VARIANTS = {
    PLAIN: {"rank": 0, "rank_gen": 0, "sparsity": 0.0},
    LOW_RANK: {"sparsity": 0.0},
    OUTLIERS: {"rank": 0, "rank_gen": 0},
    GEAR: {},
}
WINDOW = {"kivi": 64, "kcvt": 20}  # newest tokens in half precision, as the released scripts have them
_BUFFERED = {PLAIN: WINDOW}  # the corrected caches wait for 64 tokens whatever the quantiser


def config(backbone, bits, variant) -> GearConfig:
    """Return the settings of a method: those of the paper, and the corrections of the variant."""
    buffer = _BUFFERED.get(variant, {}).get(backbone, 64)
    return replace(GearConfig(backbone=backbone, bits=bits, buffer=buffer), **VARIANTS[variant])
