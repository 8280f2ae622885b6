"""The explorer of factorisations: a layer of a model, or a reader's own matrix, and every method that factorises it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kernels.formats.storage import dense_bits
from widgets.controls.knob import Knob
from widgets.controls.upload import UploadField
from widgets.figures.factorization import FactorizationScene
from widgets.figures.pruning import LayerLoss
from widgets.views.factorization import FactorizationHooks, FactorizationView
from widgets.views.frame.worker import Progress
from workbench.data.limits import VISITOR
from workbench.data.matrix_files import ENDINGS, READ, read_matrix
from workbench.explorers.entry_knobs import entry_knobs
from workbench.explorers.factorization import knobs as shared
from workbench.explorers.factorization.method import FactorMethod, methods
from workbench.explorers.own_weight import OwnWeight
from workbench.explorers.pruning.frontier import evaluation_grams, statistics_of
from workbench.explorers.pruning.source import source, sources
from workbench.models.sparse_inference.statistics import linear_layers, relative_output_error

__all__ = ["explorer", "factorised_scene"]

OWN, FIRST_MODEL, FIRST_METHOD = "own", "small_encoder", "svd"
LAYER = Knob("layer", "Layer", "", help="Which matrix is factorised.")


def explorer(weights=None, *, query: str = "", **state) -> FactorizationView:
    """Return the view of factorisations, on a layer of the encoder that ships with the workbench unless told otherwise.

    Parameters
    ----------
    weights : your own matrix: a path of a file that `workbench.data.matrix_files` reads, a NumPy array, a SciPy sparse
        array or a torch tensor (outputs, inputs). Methods that need the layer's inputs cannot factorise it here.
    query : a link's query string, which describes the whole state.
    state : values of knobs.

    Raises
    ------
    ValueError, TypeError : the matrix is too large, holds no finite real numbers, or is none.
    """
    own = OwnWeight()
    if weights is not None:
        from_file = isinstance(weights, (str, Path))
        own.take(Path(weights).name if from_file else "weights", read_matrix(weights) if from_file else weights)
        if not query:
            state = {"model": OWN} | state

    def recipe(words):
        call = f"explorer({words})"
        if f"model={OWN!r}" in words:
            call = f"explorer(w{', ' * bool(words)}{words})  # w is your own matrix".replace(f"model={OWN!r}, ", "")
        return f"from workbench.explorers.factorization.explorer import explorer\n\nview = {call}\nview.wait()\nview"

    stories = {f"{key}_{i}": story for key, each in methods().items() for i, story in enumerate(each.stories, 1)}
    hooks = FactorizationHooks(
        knobs=_knobs(),
        relevant=_relevant,
        stories=stories,
        budget=lambda state: _refused(state, own),
        recipe=recipe,
        uploads=[
            UploadField(
                label=f"Your own matrix: {READ}",
                endings=ENDINGS,
                limit_bytes=VISITOR.file_bytes,
                received=own.receive,
            )
        ],
        shows_uploads=lambda state: state["model"] == OWN,
    )

    def scenes(state, progress):
        yield from factorised_scene(state, progress, own)

    return FactorizationView(scenes, hooks, query=query, **state)


def factorised_scene(state: Mapping[str, Any], progress: Progress, own: OwnWeight | None = None):
    """Yield one matrix factorised and, where all layers are asked for, the same with their errors.

    Parameters
    ----------
    state : of all knobs.
    progress : ``progress(fraction, step)``, which may raise to stop.
    own : the reader's own matrix.
    """
    by = methods()[state["method"]]
    if state["model"] == OWN:
        yield _scene(by, own.name, own.weight, None, None, state, progress)
        return
    of = source(state["model"])
    progress(0.0, f"load the {of.title}")
    layers = linear_layers(of.load())
    layer = _layer(state["model"], state["layer"])
    share = 1 / (len(layers) + 1) if state["all_layers"] else 1.0
    if by.needs == "weights":  # the factors are there before the model has read any text
        yield _factorised(of, by, layer, state, lambda f, step: progress(0.5 * share * f, step), judged=False)
    now = _factorised(of, by, layer, state, lambda f, step: progress(share * f, step))
    yield now
    if not state["all_layers"]:
        return
    losses = []
    for i, name in enumerate(layers, 1):
        made = now
        if name != layer:
            made = _factorised(
                of, by, name, state, lambda f, step, i=i, name=name: progress(share * (i + f), f"{name}: {step}")
            )
        losses.append(
            LayerLoss(
                name=name,
                density=made.ratio,
                weight_error=made.weight_error,
                output_error=made.output_error,
            )
        )
    yield replace(now, layers=tuple(losses))


def _factorised(of, by, layer, state, progress, *, judged=True):
    weight = linear_layers(of.load(), [layer])[layer].weight.detach().numpy()
    gram = judge = None
    if judged:
        progress(0.0, f"run the {of.title} on calibration text")
        gram, judge = statistics_of(of)[layer].gram, evaluation_grams(of)[layer]
    return _scene(by, f"{of.title}, {layer}", weight, gram, judge, state, progress, layer)


def _scene(by: FactorMethod, of, weight, gram, judge, state, progress, layer="") -> FactorizationScene:
    made = by.factorise(weight, gram, state, progress)
    left = weight - made.rebuilt
    size = np.linalg.norm(weight)
    return FactorizationScene(
        title=f"{by.title} of {of}",
        layer=layer,
        weight=weight,
        rebuilt=made.rebuilt,
        factors=made.factors,
        bits=made.bits,
        dense_bits=dense_bits(weight.shape),
        multiply_adds=made.multiply_adds,
        spectrum=np.linalg.svd(weight, compute_uv=False),
        residual_spectrum=np.linalg.svd(left, compute_uv=False),
        weight_error=float(np.linalg.norm(left) / size) if size else 0.0,
        output_error=relative_output_error(weight, made.rebuilt, judge) if judge is not None else math.nan,
        history=made.history,
    )


# Knobs --------------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=8)
def _layers(of: str) -> tuple[str, ...]:
    return tuple(linear_layers(source(of).load()))


def _layer(of, asked):
    """Return the layer that was asked for, or the first of the model where it has none of that name."""
    names = _layers(of)
    return asked if asked in names else names[0]


@cache
def _knobs():
    models = (*((key, each.title) for key, each in sources().items()), (OWN, "Your own matrix"))
    titles = tuple((key, each.title) for key, each in methods().items())
    return (
        Knob("model", "Model", FIRST_MODEL, choices=models, help="Whose layer is factorised."),
        LAYER,
        Knob("method", "Method", FIRST_METHOD, choices=titles, help="How the matrix is written as a product."),
        *entry_knobs(methods(), shared),
    )


def _relevant(state):
    first = {knob.key: knob for knob in _knobs()}
    found = [first["model"]]
    if state["model"] != OWN and not source(state["model"]).missing():
        names = _layers(state["model"])
        choices = [(name, name) for name in names]
        if state["layer"] not in names:
            choices.insert(0, (state["layer"], f"{names[0]} (the first)"))
        found.append(replace(LAYER, choices=tuple(choices), default=choices[0][0]))
    return [*found, first["method"], *methods()[state["method"]].knobs]


def _refused(state, own):
    by = methods()[state["method"]]
    if state["model"] != OWN:
        return source(state["model"]).missing() or None
    if own.weight is None:
        return "There is no matrix of your own yet: choose a file above the picture."
    if by.needs == "gram":
        return (
            f"{by.title} weighs errors by the inputs of the layer, and a matrix alone has none. Choose a layer of a "
            "model, or a method that looks at the weights alone."
        )
    return None
