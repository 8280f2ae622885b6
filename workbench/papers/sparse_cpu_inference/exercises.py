"""Exercises of the notebook on sparse CPU inference."""

import numpy as np

from workbench.grading.exercise import Exercise, Mistake


def _mask(rng: np.random.Generator):
    """Which 4 x 1 blocks of a weight of 16 x 12 are kept; two block rows at least need padding."""
    counts = [5, int(rng.choice([6, 7])), int(rng.integers(1, 4)), int(rng.choice([0, 8]))]
    kept = np.zeros((4, 12), bool)
    for row, count in zip(kept, rng.permutation(counts), strict=True):
        row[rng.choice(12, count, replace=False)] = True
    return kept


def _stored(kept) -> int:
    return int((-(-kept.sum(axis=1) // 4) * 4).sum())


def _layer(rng: np.random.Generator):
    return {
        "weights": rng.integers(-127, 128, 6).tolist(),
        "weight step": float(rng.choice([0.002, 0.004, 0.005])),
        "input step": float(rng.choice([0.02, 0.04, 0.05])),
        "input zero": int(rng.integers(90, 160)),
        "bias": float(rng.integers(20, 90)) / 100,
    }


def _folded(layer, sign=-1) -> int:
    steps = round(layer["bias"] / (layer["input step"] * layer["weight step"]))
    return steps + sign * layer["input zero"] * sum(layer["weights"])


def _sums(rng: np.random.Generator):
    """Sums whose values lie on halves of the step of the result, and some that are cut."""
    drawn = [int(x) for x in 4 * rng.integers(5, 60, 2) + (1, 3)]  # one half goes down, the other up
    sums = [-int(rng.integers(20, 60)), drawn[0], drawn[1], int(rng.integers(600, 900)), 2 * int(rng.integers(10, 100))]
    return {"sums": sums, "scale": 0.25, "step": 0.5, "zero": int(2 * rng.integers(1, 5))}


def _bytes(given, rounding=np.rint, relu=True) -> tuple[int, ...]:
    values = given["scale"] * np.array(given["sums"], float)
    values = np.maximum(values, 0) if relu else values
    return tuple(int(x) for x in np.clip(rounding(values / given["step"]) + given["zero"], 0, 255))


def _run(rng: np.random.Generator):
    return {
        "sparsity": float(rng.choice([0.7, 0.8, 0.9])),
        "dense_ms": float(rng.integers(40, 90)) / 100,
        "sparse_ms": float(rng.integers(10, 25)) / 100,
    }


def _even(run) -> float:
    return (1 - run["sparsity"]) * run["dense_ms"] / run["sparse_ms"]


def _point(rng: np.random.Generator):
    steps = int(rng.choice([400, 500, 800]))
    return {"step": steps // int(rng.choice([2, 4, 5])), "steps": steps, "target": float(rng.choice([0.8, 0.9]))}


def _exp(point) -> float:
    return 1 - (1 - point["target"]) ** (point["step"] / point["steps"])


def _counts(rng: np.random.Generator):
    return [0, *map(int, rng.permutation([1, 4, 5, 6, 11]))]


def _columns(counts):
    rng = np.random.default_rng(sum(place * count for place, count in enumerate(counts)))
    return [(np.sort(rng.choice(16, count, replace=False)),) for count in counts]


def _grouped(columns) -> np.ndarray:
    missing = -len(columns) % 4
    return np.concatenate([columns, np.repeat(columns[-1:], missing)]).reshape(-1, 4).astype(int)


EXERCISES = (
    Exercise(
        name="stored",
        question="How many blocks does the kernel's format store for this weight, padding included?",
        given=_mask,
        answer=_stored,
        unit="blocks",
        hints=(
            "Each row of the mask is a block row: its kept blocks are cut into groups of four.",
            "A group never holds blocks of two block rows, and a row without blocks has no group.",
            "Round the number of kept blocks of every row up to a multiple of four, and add.",
        ),
        mistakes=(
            Mistake(lambda kept: int(kept.sum()), "Those are the kept blocks; groups that are not full are filled up."),
            Mistake(lambda kept: -(-int(kept.sum()) // 4) * 4, "Groups do not run on from one block row to the next."),
            Mistake(lambda kept: _stored(kept) // 4, "Those are the groups; how many blocks do they hold?"),
            Mistake(lambda kept: 4 * _stored(kept), "Those are the weights; a block holds four of them."),
        ),
    ),
    Exercise(
        name="fold",
        question="Which whole number does the kernel add to the sums of this output?",
        given=_layer,
        answer=_folded,
        hints=(
            "The sums of the kernel count steps of the input step times the weight step. How many of them is the bias?",
            "An input is its step times (byte - zero). Multiply out: which part does not depend on the byte?",
            "round(bias / (input step * weight step)) minus the zero times the sum of the weights.",
        ),
        mistakes=(
            Mistake(
                lambda layer: _folded(layer, 1), "The zero is subtracted from the bytes; which sign has that part?"
            ),
            Mistake(lambda layer: _folded(layer, 0), "That is the bias alone; the bytes still contain the zero point."),
        ),
    ),
    Exercise(
        name="epilogue",
        question="Which bytes does the kernel store for these sums, with ReLU?",
        given=_sums,
        answer=_bytes,
        hints=(
            "The order is: times the scale, ReLU, divided by the step, rounded, plus the zero, cut to 0 .. 255.",
            "Halves are rounded to the even neighbour: 2.5 to 2 and 3.5 to 4.",
            "ReLU turns a negative value into 0, and 0 is stored as the zero point.",
        ),
        mistakes=(
            Mistake(
                lambda given: _bytes(given, lambda x: np.floor(x + 0.5)),
                "Halves do not go up, but to the even neighbour.",
            ),
            Mistake(lambda given: _bytes(given, relu=False), "ReLU comes before the zero point is added."),
        ),
    ),
    Exercise(
        name="even",
        question="At which density would the sparse product take as long as the dense one?",
        given=_run,
        answer=_even,
        hints=(
            "Take the time of the sparse product as proportional to the share of the weights that it keeps.",
            "The density is 1 - sparsity. By which factor may it grow until the times are equal?",
        ),
        mistakes=(
            Mistake(lambda run: 1 - _even(run), "That is the sparsity there; the density is asked for."),
            Mistake(lambda run: run["sparsity"] * run["dense_ms"] / run["sparse_ms"], "Begin with what is kept."),
            Mistake(lambda run: run["dense_ms"] / run["sparse_ms"], "That is how many times faster the sparse one is."),
        ),
    ),
    Exercise(
        name="schedule",
        question='Which share of the blocks is gone at this step of the schedule "exp"?',
        given=_point,
        answer=_exp,
        hints=(
            "Let p be the step over the number of steps, and look up the formula in section 5.",
            "The share that is kept is (1 - target) to the power of p.",
        ),
        mistakes=(
            Mistake(lambda point: point["target"] * point["step"] / point["steps"], "That is the linear schedule."),
            Mistake(lambda point: 1 - _exp(point), "That is what is kept."),
            Mistake(
                lambda point: point["target"] * (1 - (1 - point["step"] / point["steps"]) ** 3),
                "That is the cubic one.",
            ),
        ),
    ),
    Exercise(
        name="groups",
        question="Write a function (columns) that returns the groups of a block row, padding included.",
        given=_counts,
        answer=lambda counts: _grouped,
        cases=_columns,
        hints=(
            "The result has four columns, and as many rows as there are groups.",
            "A short last group repeats the last column; its weights are 0, so it adds nothing.",
            "`-len(columns) % 4` columns are missing. A row without columns has no group: shape (0, 4).",
        ),
    ),
)
