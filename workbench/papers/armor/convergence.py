"""Sequential gradient descent, for which a theory exists: whether every step lowers the loss by what it promises."""

import numpy as np

from workbench.models.compression.armor import nowag_normalize, nowag_p
from workbench.models.compression.armor_steps import Search, core_step, descend, gradients
from workbench.paper import row
from workbench.papers.armor.layers import MODELS, layers_of

LOSS, RISE = "relative proxy loss after a sweep", "largest rise of the relative loss in a step"
SHORT = "smallest fall of the loss in a step, over what theory promises"
SEQUENTIAL, ADAM = "sequential gradient descent", "Adam"
STEPS = {"A": 0, "B": 1, "S": 2}
BLOCK = 32
SWEEPS = {"tiny": 3, "small": 50, "full": 200}
MATRICES = {"tiny": 1, "small": 1, "full": 2}
EVERY = 10
LEAST = 1e-9  # of the relative loss: promises below it are lost in rounding


def convergence(size, seed, report, keep):
    """Take sweeps of steps on A, B, S and the core in float64, and compare each with its bound; Adam beside them."""
    rows, model = [], MODELS[size][0]
    for name in list(layers_of(model, size))[: MATRICES[size]]:
        part = report.part(0, 1, name)
        rows += keep(
            {"model": model, "layer": name}, lambda name=name, part=part: _swept(model, name, size, seed, part)
        )
    return rows


def _swept(model, name, size, seed, part):
    w, h = layers_of(model, size)[name]
    w, count, labels = w.astype(np.float64), SWEEPS[size], {"model": model, "layer": name, "block": BLOCK}
    normal, begin = nowag_normalize(w)[0], nowag_p(w, h)
    both = {
        method: Search(normal, h, begin, (BLOCK, BLOCK), 2, 4, optimizer=key, seed=np.random.default_rng(seed))
        for method, key in ((SEQUENTIAL, "sequential_gd"), (ADAM, "adam"))
    }
    history = {method: [search.loss()] for method, search in both.items()}
    least, rise = dict.fromkeys(STEPS, np.inf), dict.fromkeys((*STEPS, "core"), -np.inf)
    for sweep in range(count):
        part(sweep / count, f"sweep {sweep}")
        history[ADAM].append(both[ADAM].round())
        _sweep(both[SEQUENTIAL], least, rise)
        history[SEQUENTIAL].append(both[SEQUENTIAL].loss())
    rows = [
        row(LOSS, losses[i], "relative", "measured", method=method, sweep=i, **labels)
        for method, losses in history.items()
        for i in sorted({0, *range(EVERY, count + 1, EVERY), count})
    ]
    rows += [row(SHORT, x, "x", "measured", step=step, **labels) for step, x in least.items() if x < np.inf]
    return rows + [row(RISE, x, "relative", "measured", step=step, **labels) for step, x in rise.items()]


def _sweep(search, least, rise):
    """Take one step of each kind, and note the smallest fall over its promise and the largest rise of each kind."""
    before = search.loss()
    for step, which in STEPS.items():
        gradient = gradients(search.state, search.target, search.weights)[which]
        smooth = descend(search.state, search.target, search.weights, only=step.lower())
        promised = float((gradient.square() / (2 * smooth)).sum()) / search.whole
        now = search.loss()
        rise[step] = max(rise[step], now - before)
        if promised > LEAST:
            least[step] = min(least[step], (before - now) / promised)
        before = now
    core_step(search.state, search.target, search.weights, 2, 4, draw=search.draw)
    rise["core"] = max(rise["core"], search.loss() - before)
