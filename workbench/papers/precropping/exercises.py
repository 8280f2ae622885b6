"""Exercises of the notebook on PreCropping."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake


def _chain(rng: np.random.Generator):
    """Sizes of five layers, and a budget that leaves the two smallest whole and the others not."""
    small = sorted(int(x) for x in rng.choice(np.arange(40, 160), 2, replace=False))
    large = [int(x) for x in rng.choice([2000, 3000, 5000, 8000, 9000], 3, replace=False)]
    level = int(rng.integers(200, 900))
    return {"sizes": [small[0], *large[:2], small[1], large[2]], "budget": sum(small) + 3 * level}


def _level(given) -> float:
    below, rest = 0, sorted(given["sizes"])
    while rest and (given["budget"] - below) / len(rest) > rest[0]:
        below += rest.pop(0)
    return (given["budget"] - below) / len(rest) if rest else float(max(given["sizes"]))


def _filled(sizes, budget) -> np.ndarray:
    size = np.asarray(sizes, float)
    level = _level({"sizes": list(size), "budget": budget})
    return np.minimum(1.0, level / size)


def _layer(rng: np.random.Generator):
    inputs, outputs = (int(x) for x in rng.choice([16, 32, 48, 64], 2, replace=False))
    return {
        "inputs": inputs,
        "outputs": outputs,
        "inputs kept": int(rng.integers(3, inputs // 2)),
        "outputs kept": int(rng.integers(3, outputs // 2)),
    }


def _share(layer) -> float:
    return layer["inputs kept"] * layer["outputs kept"] / (layer["inputs"] * layer["outputs"])


def _block(rng: np.random.Generator):
    stream, inner = int(rng.choice([16, 32])), int(rng.choice([24, 40, 64]))
    return {
        "stream": stream,
        "inner": inner,
        "stream kept": int(rng.integers(4, stream // 2)),
        "inner kept": int(rng.integers(5, inner // 2)),
        "blocks": int(rng.integers(2, 5)),
    }


def _weights(given) -> int:
    return 2 * given["blocks"] * 9 * given["stream kept"] * given["inner kept"]


def _flow(rng: np.random.Generator):
    """Two layers of whole numbers of both signs, and a weight of the first."""
    first, second = rng.integers(1, 6, (3, 2)), rng.integers(1, 6, (2, 3))
    signs = [rng.choice([-1, 1], part.shape) for part in (first, second)]
    row = int(rng.integers(3))
    signs[1][:, row] = (-1, 1)  # they would cancel
    return {"first": (first * signs[0]).tolist(), "second": (second * signs[1]).tolist(), "row": row}


def _score(given, absolute=True) -> float:
    """Return the score of the weight in a row of the first layer and in its first column."""
    first, second = (np.array(given[name], float) for name in ("first", "second"))
    if absolute:
        first, second = np.abs(first), np.abs(second)
    return float(abs(first[given["row"], 0] * second[:, given["row"]].sum()))


def _saliency(rng: np.random.Generator):
    order = rng.permutation(6)
    weights = np.array([0.9, 0.7, 0.5, 0.4, 0.3, 0.1])[order] * rng.choice([-1, 1], 6)
    gradients = np.array([0.1, 0.2, 0.5, 0.9, 0.8, 1.5])[order] * rng.choice([-1, 1], 6)
    return {"weights": weights.round(2).tolist(), "gradients": gradients.round(2).tolist(), "kept": 2}


def _chosen(given, score=lambda w, g: np.abs(w * g)) -> tuple[int, ...]:
    found = score(np.array(given["weights"]), np.array(given["gradients"]))
    return tuple(sorted(int(i) for i in np.argsort(-found)[: given["kept"]]))


def _budgets(rng: np.random.Generator):
    return [float(x) for x in rng.uniform(0.05, 0.9, 4).round(2)]


def _cases(shares):
    rng = np.random.default_rng(round(100 * sum(shares)))
    drawn = [rng.integers(10, 10_000, int(rng.integers(1, 8))).astype(float) for _ in shares]
    return [(sizes, share * sizes.sum()) for sizes, share in zip(drawn, shares, strict=True)]


EXERCISES = (
    Exercise(
        name="share",
        question="Which share of its weights does this convolution keep when whole channels are cropped?",
        given=_layer,
        answer=_share,
        hints=(
            "A weight stays if its input channel stays and its output channel stays.",
            "Multiply the share of the inputs that stays by the share of the outputs.",
        ),
        mistakes=(
            Mistake(
                lambda layer: layer["outputs kept"] / layer["outputs"],
                "Cropped inputs take weights away as well.",
            ),
            Mistake(lambda layer: _share(layer) ** 0.5, "That is the factor of one end if both ends had the same."),
        ),
    ),
    Exercise(
        name="block",
        question="How many weights do the 3 x 3 convolutions of these residual blocks have after cropping?",
        given=_block,
        answer=_weights,
        unit="weights",
        hints=(
            "Each block has two convolutions: from the stream to the inner channels, and back.",
            "The stream is one group: all blocks keep the same channels of it, or they could not be added.",
            "A convolution has 9 weights for each pair of an input and an output channel.",
        ),
        mistakes=(
            Mistake(lambda given: _weights(given) // 2, "A block has two convolutions."),
            Mistake(
                lambda given: 2 * given["blocks"] * 9 * given["stream"] * given["inner kept"],
                "The stream is cropped, too.",
            ),
        ),
    ),
    Exercise(
        name="flow",
        question="What is the SynFlow score of the weight in the given row and in column 0 of the first layer?",
        given=_flow,
        answer=_score,
        hints=(
            "Every weight is taken at its absolute value, and each input is one.",
            "The score is the weight times everything that carries it on to the sum of the outputs.",
            "Add up the absolute values of that column of the second layer that reads the row's output.",
        ),
        mistakes=(
            Mistake(lambda given: _score(given, absolute=False), "Signs cancel here; SynFlow takes absolute values."),
            Mistake(
                lambda given: abs(np.array(given["first"])[given["row"], 0]),
                "That is the magnitude; the path to the outputs counts as well.",
            ),
        ),
    ),
    Exercise(
        name="snip",
        question="Which two weights does SNIP keep? Give their numbers in rising order, counted from 0.",
        given=_saliency,
        answer=_chosen,
        hints=(
            "The score of a weight is the size of the weight times its gradient.",
            "Signs do not matter. Compute all six products and take the two largest.",
        ),
        mistakes=(
            Mistake(lambda given: _chosen(given, lambda w, g: np.abs(w)), "Those have the largest weights."),
            Mistake(lambda given: _chosen(given, lambda w, g: np.abs(g)), "Those have the largest gradients."),
        ),
    ),
    Exercise(
        name="level",
        question="At which level does the water stand: how many weights does every layer keep that is not kept whole?",
        given=_chain,
        answer=_level,
        unit="weights",
        hints=(
            "Share the budget equally. A layer that has fewer weights than its part stays whole.",
            "Take whole layers out of the budget, and share what is left among the others.",
            "Repeat until no layer is smaller than its part.",
        ),
        mistakes=(
            Mistake(
                lambda given: given["budget"] / len(given["sizes"]),
                "Small layers cannot hold so many; what they leave goes to the others.",
            ),
        ),
    ),
    Exercise(
        name="fill",
        question="Write a function (sizes, budget) that returns the densities of the water filling.",
        given=_budgets,
        answer=lambda shares: _filled,
        cases=_cases,
        hints=(
            "Sort the sizes. For each, ask whether the level would lie below it if all smaller ones were whole.",
            "The density of a layer is the smaller of 1 and level / size.",
            "Return an array with one density for each layer, in the order of the sizes.",
        ),
    ),
)
