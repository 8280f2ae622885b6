"""Settings of the explorer worth seeing, and what to look at."""

from widgets.views.frame.story import Story

_LARGER = {"rows": 256, "columns": 512}
STORIES = {
    "half": Story(
        "Half of the weights gone",
        _LARGER | {"sparsity": 0.5, "section": "bytes"},
        "Half of the weights are zero. Which formats take fewer bytes than the dense one, and which take more? Then "
        "raise the sparsity: where does 16-bit CSR overtake the bitmap?",
    ),
    "blocks": Story(
        "Blocks on weights that have none",
        _LARGER | {"sparsity": 0.8, "section": "bytes", "format": "groups"},
        "Weights were pruned one by one, so nearly every block keeps one: the hatched bars are zeros that are stored. "
        "Now choose the pattern of 4 x 1 blocks.",
    ),
    "dot": Story(
        "One group, one set of registers",
        {"pattern": "blocks", "section": "step", "format": "groups", "step": 1},
        "4 rows share the 4 rows of activations that a group names. Step on to the last group of a row of blocks: it "
        "may be filled up with zeros, which are multiplied as well.",
    ),
    "banks": Story(
        "Words that meet in a bank",
        {
            "rows": 128,
            "columns": 64,
            "sparsity": 0.8,
            "value_bits": "16",
            "section": "step",
            "format": "tiled_csl",
            "reorder": False,
        },
        "32 lanes store at once. How many words meet in the fullest bank? Then deal the words over the banks: the same "
        "words, in another order.",
    ),
    "decode": Story(
        "Multiplying zeros is free, for a while",
        _LARGER | {"sparsity": 0.8, "value_bits": "16", "section": "roofline", "machine": "a100", "tokens": 16},
        "With few columns memory limits every format, and the one that moves fewest bytes wins, although tiled-CSL "
        "multiplies all zeros. Raise the columns until it loses its lead.",
    ),
}
