"""Settings of the explorer worth seeing, and what to look at."""

from widgets.views.frame.story import Story

STORIES = {
    "spike": Story(
        "From flat to one bar",
        {"source": "dft", "n": "64", "nblocks": 8, "permuted": False},
        "Every spectrum of the Fourier transform is flat: a projection keeps an eighth of the energy. Predict what the "
        "other order of the inputs does, look at the right, then permute the inputs.",
    ),
    "filling": Story(
        "Two block-diagonal factors fill a matrix",
        {"source": "dft", "n": "64", "nblocks": 8, "section": "factors", "filled": 1},
        "Both factors have one entry in eight, and their product has none that is zero. Step on: each block of the "
        "first factor fills its columns in all rows, because the second factor reads across them.",
    ),
    "convolution": Story(
        "A convolution is not a single one",
        {"source": "circulant", "n": "64", "nblocks": 8, "section": "errors"},
        "The Fourier transform is exact, a convolution is not: it takes two transforms, one there and one back. How "
        "near is one alone, compared with low rank?",
    ),
    "encoder": Story(
        "Trained weights: low rank is nearer",
        {"source": "small_encoder", "nblocks": 4, "rank": 8, "section": "errors"},
        "Half of the parameters. Which structure is nearest before any training? Move along the curves: is there a "
        "number of blocks at which Monarch passes low rank?",
    ),
    "digits": Story(
        "Few ways to vary",
        {"source": "digits", "nblocks": 8, "rank": 1, "section": "errors"},
        "The covariance of pictures is nearly of low rank, and low rank wins clearly. Look at the spectra: which parts "
        "have a second bar?",
    ),
}
