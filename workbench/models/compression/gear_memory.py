"""What a compressed cache takes, from its settings and shape alone."""

from kernels.check import as_int, check_choice
from kernels.masks.outliers import outlier_count
from workbench.models.compression.gear import BY_CHANNEL, WHOLE

__all__ = ["memory_bits_per_scalar"]


def memory_bits_per_scalar(cfg, n, d, heads, *, kind="key", recent=None) -> dict[str, float]:
    """Return the bits that each cached number takes, by what they hold, and "total".

    Parameters
    ----------
    cfg : GearConfig.
    n : compressed tokens, one block; at least 1.
    d, heads : channels of a head, heads of a layer.
    kind : "key" or "value"; they differ in their scales and outliers.
    recent : tokens in half precision besides; a full buffer unless given.

    Returns
    -------
    Part -> bits, averaged over n + recent tokens.

    Source
    ------
    The paper's accounting: b bits of code, 32 for each group, 16 r (1/d + 1/n) of low rank, and 32 an outlier.
    """
    name = "memory_bits_per_scalar"
    n, d, heads = (as_int(x, function=name, name=label, low=1) for x, label in ((n, "n"), (d, "d"), (heads, "heads")))
    check_choice(kind, ("key", "value"), function=name, name="kind")
    recent = cfg.buffer if recent is None else as_int(recent, function=name, name="recent", low=0)
    if cfg.bits == WHOLE:
        return {"buffer": 16.0, "total": 16.0}
    by_channel = kind == "key" and BY_CHANNEL[cfg.backbone]
    group = cfg.group if cfg.backbone != "kcvt" else n if by_channel else heads * d
    length = n if kind == "key" else heads * d
    rank = min(cfg.rank, n, d)
    parts = {
        "codes": float(cfg.bits),
        "scales": 32.0 / group,
        "low rank": 16.0 * rank * (1 / d + 1 / (n if cfg.lowrank_per_head else heads * n)),
        "outliers": 64.0 * outlier_count(length, cfg.sparsity, at_least=cfg.min_outliers) / length,
    }
    share = n / (n + recent)
    found = {part: share * bits for part, bits in parts.items()} | {"buffer": 16.0 * (1 - share)}
    return found | {"total": sum(found.values())}
