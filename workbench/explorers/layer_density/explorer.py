"""The explorer of layer densities: nets, pruners and ways of cropping, and the view that compares them."""

import copy
import itertools
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from widgets.controls.knob import Knob
from widgets.figures.layer_density import AccuracyPoint, DensityScene
from widgets.views.layer_density import DensityHooks, LayerDensityView
from workbench.explorers.layer_density.method import methods
from workbench.explorers.layer_density.recorded import epoch_seconds, outcomes, recorded_points, recorded_rows
from workbench.explorers.layer_density.source import NetSource, sources
from workbench.explorers.layer_density.stories import STORIES

__all__ = ["density_scene", "explorer"]

OWN = "own"
MOST_WEIGHTS = 4_000_000  # of a model on a page: each round goes through all of them
EPOCHS, TIMED_EXAMPLES = 15, 512
MODES = (
    ("tied", "all channels, to the densities"),
    ("inner", "only inside of residual blocks"),
    ("preconfig", "all channels, wider ones allowed"),
    ("synexp", "all channels, by the closed form"),
    ("uniform", "the same share everywhere"),
)
DENSITY = Knob(
    "density", "Density", 0.1, 0.003, 1.0, scale="log10", help="Share of the weights of the whole net that stays."
)
ROUNDS = Knob("rounds", "Rounds", 20, 1, 100, 1, help="How often the net is scored and pruned a little more.")
MODE = Knob("mode", "Channels", "tied", choices=MODES, help="Which channels are cropped, and to what.")
KIND = Knob(
    "budget_kind", "Budget of", "params", choices=(("params", "weights"), ("flops", "multiply-adds")),
    help="What the cropped net may have: the same share of weights, or of multiply-adds.",
)  # fmt: skip
SEED = Knob("seed", "Seed", 1, 0, 10**6, help="Of the initial weights, and of what is drawn at random.")
_SERIAL = itertools.count()  # of all explorers, since scenes are kept for all of them


def explorer(model=None, example=None, batches=None, data=None, *, query: str = "", **state) -> LayerDensityView:
    """Return the view of layer densities, on a small residual net unless a model is given.

    Parameters
    ----------
    model : your own, a module of convolutions, linear and BatchNorm layers, see
        `workbench.models.compression.channel_graph.channel_groups`; or the key of one of `sources`.
    example : for your own model, an input (n, channels, rows, columns).
    batches : for your own model, batches (inputs, labels) for pruners that need data.
    data : for your own model, (training, test), each inputs and labels: with them it can be trained on the page.
    query : a link's query string, which describes the whole state.
    state : values of knobs.

    Raises
    ------
    TypeError, KeyError : a model of your own that cannot be followed. ValueError : one above the page's limit.
    """
    own = None
    if isinstance(model, str):
        state["net"] = model
    elif model is not None:
        own = _own(model, example, batches, data)
        state = {"net": OWN} | state if not query else state
    serial = next(_SERIAL)

    def recipe(words):
        call = f"explorer({words})"
        if f"net={OWN!r}" in words:
            call = f"explorer(model, example{', ' * bool(words)}{words})  # your own".replace(f"net={OWN!r}, ", "")
        return f"from workbench.explorers.layer_density.explorer import explorer\n\nview = {call}\nview.wait()\nview"

    def scene(state: Mapping[str, Any], progress) -> DensityScene:
        return density_scene(state, progress, own, serial)

    rows = recorded_rows()
    hooks = DensityHooks(
        pruning=_knobs(own),
        relevant=_relevant,
        training=lambda state: _seconds(state, rows, own),
        stories=STORIES if own is None else {},
        budget=lambda state: _refused(state, own),
        recipe=recipe,
    )
    return LayerDensityView(scene, hooks, query=query, **state)


def density_scene(
    state: Mapping[str, Any], progress=lambda fraction, step: None, own: NetSource | None = None, serial: int = -1
) -> DensityScene:
    """Return what a state describes: masks, widths, and the trained nets that are known of it."""
    of = _source(state["net"], own)
    key = (serial if state["net"] == OWN else -1, *(state[knob.key] for knob in _knobs(own)))
    scene = _KNOWN.get(key)
    if scene is None:
        scene = _pruned(state, of, progress)
        _KNOWN.keep(key, scene)
    points = recorded_points(recorded_rows(), of.key)
    if state["trained"]:
        trained = _TRAINED.get(key)
        if trained is None:
            trained = _train(state, of, scene, progress)
            _TRAINED.keep(key, trained)
        points = (*points, *trained)
    return replace(scene, points=points, outcomes=outcomes(points, state["density"]))


class _Kept:
    """The last few results, by what they were made from; a result that was stopped half way is not among them."""

    def __init__(self, most):
        self._most, self._found = most, {}

    def get(self, key):
        return self._found.get(key)

    def keep(self, key, value):
        self._found[key] = value
        while len(self._found) > self._most:
            self._found.pop(next(iter(self._found)))


_KNOWN, _TRAINED = _Kept(16), _Kept(64)


def _pruned(state, of, progress):
    import torch

    from workbench.models.compression.channel_graph import channel_groups
    from workbench.models.compression.pai_scores import layerwise_density, pai_masks
    from workbench.models.compression.precropping import water_level

    progress(0.0, "building the net")
    by, example = methods()[state["method"]], of.example()
    model = of.build(state["seed"])
    graph = channel_groups(model, example)
    how = {"loader": of.batches(), "seed": state["seed"], "input_shape": tuple(example.shape[1:])}
    rounds = state["rounds"] if by.rounds else 1
    masks = pai_masks(model, by.key, state["density"], rounds, report=progress, **how)
    once = pai_masks(model, by.key, state["density"], 1, **how) if rounds > 1 else masks
    budget = state["density"] * graph.count(graph.widths, state["budget_kind"])
    refused, widths = "", {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the headline tells of layers that keep nothing
            widths = _widths(state["mode"], graph, layerwise_density(masks), budget, state["budget_kind"])
    except ValueError as error:
        words = str(error).partition(": ")[2]
        refused = f"{words[:1].upper()}{words[1:]}."
    after = graph.widths | widths
    sizes = np.array(list(graph.sizes().values()), float)
    with torch.no_grad():
        shaped = tuple(_shaped(masks[layer.name].numpy(), layer) for layer in graph.layers)
    ends = [(layer.target if layer.source is None else layer.source, layer.target) for layer in graph.layers]
    return DensityScene(
        title=of.told,
        scored=f"pruning by {by.told}",
        names=tuple(layer.name for layer in graph.layers),
        masks=shaped,
        once=np.array([int(once[layer.name].sum()) for layer in graph.layers], np.int64),
        rounds=rounds,
        channels=np.array([[graph.widths[end] for end in pair] for pair in ends], np.int64),
        cropped=np.array([[after[end] for end in pair] for pair in ends], np.int64),
        groups=tuple((g.name, g.channels, after[g.name], g.added) for g in graph.groups if not g.fixed),
        level=water_level(sizes, state["density"] * sizes.sum()),
        budget=float(budget),
        used=float(graph.count(after, state["budget_kind"])),
        unit=dict(KIND.choices)[state["budget_kind"]],
        refused=refused,
        recorded="recorded with 15 epochs on handwritten digits",
    )


def _widths(mode, graph, densities, budget, kind):
    from workbench.models.compression import precropping

    how = {"budget_kind": kind}
    ways = {
        "preconfig": lambda: precropping.preconfig(graph, densities, budget, **how),
        "synexp": lambda: precropping.synexp_widths(graph, budget, **how),
        "uniform": lambda: precropping.uniform_widths(graph, budget, **how),
    }
    return ways.get(mode, lambda: precropping.precrop(graph, densities, budget, mode=mode, **how))()


def _shaped(mask, layer):
    """Return a mask as (outputs, inputs, kernel places); a linear layer's pixels of a channel lie together."""
    return mask.reshape(mask.shape[0], -1, layer.area)


def _train(state, of, scene, progress):
    """Train the pruned and the cropped net of a state; the scene's widths and masks are theirs."""
    import torch

    from workbench.models.compression.channel_graph import channel_groups
    from workbench.models.compression.crop import build_cropped
    from workbench.models.compression.masked_training import accuracy, train

    training, test = of.data()
    model = of.build(state["seed"])
    masks = {
        name: torch.from_numpy(mask).reshape(model.get_submodule(name).weight.shape)
        for name, mask in zip(scene.names, scene.masks, strict=True)
    }
    by = methods()[state["method"]]
    nets = [(f"pruned by {by.title.partition(':')[0]}", model, masks, int(scene.kept.sum()))]
    if scene.is_cropped:
        widths = {name: after for name, _, after, _ in scene.groups}
        cropped = build_cropped(model, widths, graph=channel_groups(model, of.example()), seed=state["seed"])
        nets.append((f"cropped: {dict(MODES)[state['mode']]}", cropped, {}, int(scene.cropped_sizes.sum())))
    found = []
    for i, (name, net, held, kept) in enumerate(nets):

        def tell(fraction, step, i=i, name=name):
            progress((i + fraction) / len(nets), f"training, {name}: {step}")

        train(net, training, held, epochs=EPOCHS, seed=state["seed"], report=tell)
        reached = accuracy(net, test)
        found.append(
            AccuracyPoint(
                name=name, density=state["density"], accuracy=reached, low=reached, high=reached, parameters=kept,
                here=True,
            )
        )  # fmt: skip
    return tuple(found)


def _knobs(own=None):
    nets = [(key, each.title) for key, each in sources().items()]
    nets += [(OWN, "Your own")] if own is not None else []
    menu = Knob("net", "Net", "residual", choices=tuple(nets), help="Which net is pruned before its training.")
    pruners = tuple((key, each.title) for key, each in methods().items())
    return (
        menu,
        Knob("method", "Scored by", pruners[0][0], choices=pruners, help="What a weight is worth before training."),
        DENSITY,
        ROUNDS,
        MODE,
        KIND,
        SEED,
    )


def _relevant(state):
    rounds = ("rounds",) if methods()[state["method"]].rounds else ()
    return ("net", "method", "density", *rounds, "mode", "budget_kind", "seed")


def _source(key, own):
    return own if key == OWN and own is not None else sources()[key]


def _refused(state, own):
    of, by = _source(state["net"], own), methods()[state["method"]]
    if by.needs_data and not of.batches():
        return f"{by.title} needs labelled examples: pass batches=[(inputs, labels)] with your model."
    if state["trained"] and of.data is None:
        return "There are no examples to train this net on: pass data=(training, test) with your model."
    return None


def _seconds(state, rows, own):
    """Return about how long a training here takes, from the record of an epoch; None where there is none."""
    of = _source(state["net"], own)
    if of.data is None:
        return None
    each = epoch_seconds(rows, of.key, state["density"])
    return None if each is None else EPOCHS * each * _examples(of) / TIMED_EXAMPLES


def _examples(of):
    return len(of.data()[0][0])


def _own(model, example, batches, data):
    from workbench.models.compression.channel_graph import channel_groups

    graph = channel_groups(model, example)
    whole = graph.count(graph.widths)
    if whole > MOST_WEIGHTS:
        raise ValueError(
            f"explorer: the model has {whole:,} weights, the limit of this view is {MOST_WEIGHTS:,}; pai_masks and "
            "precrop of workbench.models.compression take larger ones"
        )
    return NetSource(
        key=OWN,
        title="Your own",
        told=f"Your own model, {type(model).__name__}",
        build=lambda seed: copy.deepcopy(model),
        example=lambda: example[:1],
        data=None if data is None else lambda: data,
        batches=lambda: list(batches or ()),
    )
