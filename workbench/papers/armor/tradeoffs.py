"""NoWag-P, alone and with a low-rank part, and ARMOR as points of the pruning explorer: quality and bytes."""

from workbench.explorers.pruning.measured import EMBEDDED, judged_rows

METHODS = ("nowag", "nowag_low_rank", "armor")


def tradeoffs(size, seed, report, keep):
    """Compress an encoder and a language model at every level and at equal bytes, and judge them."""
    return judged_rows(METHODS, size, report, keep)


def tradeoffs_embedded(size, seed, report, keep):
    """Do the same with the sentence encoder that ships with the workbench."""
    return judged_rows(METHODS, size, report, keep, models=EMBEDDED)
