"""Exercises of the FaViT notebook."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake


def _map(rng: np.random.Generator):
    window, dilation = int(rng.integers(3, 6)), int(rng.integers(2, 4))
    span = dilation * (window - 1) + 1
    return {
        "window": window,
        "dilation": dilation,
        "height": span * int(rng.integers(2, 5)),
        "width": span * int(rng.integers(2, 5)),
    }


def _span(given):
    return given["dilation"] * (given["window"] - 1) + 1


def _reached(given) -> int:
    windows = (given["height"] // _span(given)) * (given["width"] // _span(given))
    return windows * given["window"] ** 2


def _partners(rng: np.random.Generator):
    given = _map(rng)
    return given | {"row": int(rng.integers(_span(given))) // given["dilation"] * given["dilation"], "column": 0}


def _sharing(given):
    """Pixels that share the key of a pixel, as a bool map."""
    found = np.zeros((given["height"], given["width"]), bool)
    found[given["row"] :: _span(given), given["column"] :: _span(given)] = True
    return found


def _same_window(given):
    found = np.zeros((given["height"], given["width"]), bool)
    found[: _span(given) : given["dilation"], : _span(given) : given["dilation"]] = True
    return found


def _small_map(rng: np.random.Generator):
    return rng.integers(0, 20, (6, 9)).astype(float), 3


def _fused(given):
    x, m = given
    return x.reshape(x.shape[0] // m, m, x.shape[1] // m, m).mean((0, 2))


def _pooled(given):
    x, m = given
    return x.reshape(m, x.shape[0] // m, m, x.shape[1] // m).mean((1, 3))


def _cost(rng: np.random.Generator):
    side, stride = (int(x) for x in rng.choice([(28, 2), (56, 2), (56, 4), (112, 4)]))
    return {"side": side, "stride": stride, "window": 7, "channels": 16 * int(rng.integers(2, 7))}


def _products(given, global_keys=None) -> int:
    n, c = given["side"] ** 2, given["channels"]
    keys = n // given["stride"] ** 2 if global_keys is None else global_keys
    return 2 * n * given["window"] ** 2 * (c // 16 * 14) + 2 * n * keys * (c // 16 * 2)


EXERCISES = (
    Exercise(
        name="reach",
        question="How many pixels are part of some key?",
        given=_map,
        answer=_reached,
        unit="pixels",
        hints=(
            "A window spans dilation * (window - 1) + 1 pixels per side and takes window of them.",
            "Windows lie side by side; how many fit on the map?",
            "Each window gives window * window pixels, and no pixel twice.",
        ),
        mistakes=(
            Mistake(lambda g: g["window"] ** 2, "Those are the keys; each is made of one pixel from every window."),
            Mistake(
                lambda g: g["height"] * g["width"], "A dilated window leaves out the pixels between those it takes."
            ),
        ),
    ),
    Exercise(
        name="partners",
        question="Which pixels share one key with this pixel? A bool map.",
        given=_partners,
        answer=_sharing,
        hints=(
            "A key is the mean over windows of the pixels at one place inside the window.",
            "The pixel at the same place in the next window is one span further.",
            "Slices with a step do it: `map[row::span, column::span] = True`.",
        ),
        mistakes=(Mistake(_same_window, "Those are the pixels of one window: each of them feeds another key."),),
    ),
    Exercise(
        name="fuse",
        question="Fuse this map with windows of 3 and dilation 1: what are the 3 x 3 keys?",
        given=_small_map,
        answer=_fused,
        hints=(
            "Six windows of 3 x 3; average them as if laid on top of each other.",
            "`x.reshape(2, 3, 3, 3)` has axes window down, row in it, window across, column in it.",
        ),
        mistakes=(
            Mistake(_pooled, "That averages neighbours, as pooling to 3 x 3 does; a key joins pixels far apart."),
        ),
    ),
    Exercise(
        name="cost",
        question="How many multiply-adds do the attention products of this FaSA layer take, all three groups?",
        given=_cost,
        answer=_products,
        unit="multiply-adds",
        hints=(
            "Two products per key and channel, for every pixel: with the keys, and with the values.",
            "Of 16 parts of the channels, 7 go to each window group and 2 to the global one.",
            "The global group's keys are the pixels divided by the stride squared.",
        ),
        mistakes=(
            Mistake(lambda g: _products(g, 49), "The global group has more keys: one per square of the stride."),
            Mistake(lambda g: _products(g, 0), "The global group costs something too."),
            Mistake(lambda g: _products(g) // 2, "There are two products: queries with keys, weights with values."),
        ),
    ),
)
