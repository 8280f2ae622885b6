"""Dense-sparse blocks as points of the pruning explorer: quality and bytes."""

from workbench.explorers.pruning.measured import EMBEDDED, judged_rows


def tradeoffs(size, seed, report, keep):
    """Factorise an encoder and a language model at every level and at equal bytes, and judge them."""
    return judged_rows(("dsformer",), size, report, keep)


def tradeoffs_embedded(size, seed, report, keep):
    """Do the same with the sentence encoder that ships with the workbench."""
    return judged_rows(("dsformer",), size, report, keep, models=EMBEDDED)
