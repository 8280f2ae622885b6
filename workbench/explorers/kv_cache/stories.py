"""Settings of the explorer worth seeing, and what to look at."""

from widgets.views.frame.story import Story

STORIES = {
    "two_percent": Story(
        "Two per cent of the entries",
        {"section": "corrections", "sparsity": 2.0, "what": "key", "head": 6, "channel": 29},
        "The marks below the histogram are the levels of 2 bits. How far apart do they lie with all entries, and "
        "how far without the outliers? Set the outliers to 0 per cent, and to 10.",
    ),
    "low_rank": Story(
        "What four numbers a token repair",
        {"section": "corrections", "cache": "generated", "shared": 3.0, "rank": 4},
        "The error of a quantiser is not noise alone. How much of its energy do the first four singular values hold? "
        "Then raise the rank: from where on does more of it hardly lower the error?",
    ),
    "equal_bytes": Story(
        "Two bits repaired, or three bits plain?",
        {"section": "bytes", "bits": 2},
        "Compare the bytes of both corrections with those of the quantiser alone, then set 3 bits: which cache of "
        "about as many bytes is nearer to the exact one?",
    ),
    "buffer": Story(
        "A cache that fills up",
        {"section": "bytes", "prompt": 128, "step": 200},
        "Step on token by token. When does the buffer become a block, and why is an old block never touched again?",
    ),
    "drift": Story(
        "The error while the model writes",
        {"section": "drift", "prompt": 64, "bits": 2},
        "Each curve is one method. Does the error grow as more of the cache is compressed? Compare 2 with 4 bits.",
    ),
}
