"""The pruning explorer: models and methods, gathered from their folders, and the points that records hold."""

from dataclasses import replace
from functools import cache, partial

from widgets.figures.pruning import PruningScene, TradeoffPoint
from widgets.views.pruning_tradeoff import PruningHooks, PruningTradeoffView, added_points, pruning_knobs
from widgets.views.sparsity import SparsityView
from workbench.explorers.pruning import frontier
from workbench.explorers.pruning.budget import solve_budget, stored_ratio
from workbench.explorers.pruning.method import method, methods
from workbench.explorers.pruning.recorded import points, recorded_rows
from workbench.explorers.pruning.source import source, sources
from workbench.explorers.pruning.stories import STORIES
from workbench.models.sparse_inference.statistics import linear_layers

__all__ = ["explorer", "kept_weights_view", "scenes", "view_class"]

FIRST_MODEL, EMBEDDED = "minilm", "small_encoder"
FIRST_METHOD = "magnitude"
MOST_KNOWN = 64
NOTE = "Embeddings, biases and normalisation stay as they are and are not counted."


@cache
def view_class() -> type[PruningTradeoffView]:
    """Return the view of trade-offs over all models and methods that there are."""
    one_shot = {key: each for key, each in methods().items() if each.one_shot}
    one_shot = {FIRST_METHOD: one_shot[FIRST_METHOD], **one_shot}  # offered first: it takes no time
    order = sorted(sources().values(), key=lambda each: each.key != FIRST_MODEL)
    axes = dict.fromkeys(axis for each in order for axis in (*each.qualities, frontier.OUTPUT_ERROR))
    knobs = pruning_knobs(
        [(each.key, each.title) for each in order],
        [(key, each.title) for key, each in one_shot.items()],
        list(dict.fromkeys(level for each in one_shot.values() for level in each.levels)),
        list(axes),
        frontier.COSTS,
    )
    about = "The view of pruning trade-offs over all models and methods."
    return type("PruningExplorer", (PruningTradeoffView,), {"__doc__": about, "__module__": __name__, "knobs": knobs})


def explorer(*, query: str = "", **state) -> PruningTradeoffView:
    """Return the view in any state of its knobs, or in the state that a link's query string describes.

    Where the weights of the first model are not installed, it opens on the encoder that ships with the workbench.
    """
    if source(FIRST_MODEL).missing() and "model" not in state and "model=" not in query:
        state, query = {**state, "model": EMBEDDED}, query and f"{query}&model={EMBEDDED}"
    hooks = PruningHooks(
        levels={key: each.levels for key, each in methods().items()},
        budget=lambda state: source(state["model"]).missing() or None,
        recipe=lambda words: (
            f"from workbench.explorers.pruning.explorer import explorer\n\nview = explorer({words})\n"
            "view.wait()\npoints = view.scene.points\nview"
        ),
        stories=STORIES,
        solve=_level_at_budget,
    )
    return view_class()(scenes, hooks, query=query, **state)


def scenes(state, progress=lambda fraction, step: None):
    """Yield the points of the records, then the same with each point that the reader asked for."""
    of = source(state["model"])
    progress(0.0, of.title)
    recorded = points(recorded_rows(), of)
    dense = [point for point in recorded if point.key == frontier.DENSE]
    asked = added_points(state["added"])
    there = {point.method for point in recorded} | {methods()[by].title for by, _ in asked if by in methods()}
    now = PruningScene(
        model=of.title,
        dense=dense[0] if dense else frontier.dense_point(of),
        points=tuple(point for point in recorded if point.key != frontier.DENSE),
        qualities=(*of.qualities, frontier.OUTPUT_ERROR),
        costs=frontier.COSTS,
        note=" ".join([NOTE, *(each.note for each in methods().values() if each.note and each.title in there)]),
    )
    yield now
    for i, (by, level) in enumerate(asked):
        point = _computed(of.key, by, level, lambda f, step, i=i: progress((i + f) / len(asked), step))
        recorded_one = next((p for p in now.points if p.key == point.key and p.stage == point.stage), None)
        others = tuple(p for p in now.points if p is not recorded_one)
        if recorded_one:  # its times are known
            point = replace(point, cost={**recorded_one.cost, **point.cost})
        now = replace(now, points=(*others, point))
        yield now


def _level_at_budget(state) -> tuple[str, str]:
    """Return the level at which the method to compute takes the budget of stored bytes, and a sentence about it."""
    by, bits = method(state["method"]), int(state["value_bits"])
    layers = linear_layers(source(state["model"]).load()).values()
    shapes = [(layer.out_features, layer.in_features) for layer in layers]
    level = solve_budget(by.key, shapes, state["within"], bits, with_indices=state["indices"])
    found = stored_ratio(by, shapes, level, bits, with_indices=state["indices"])
    return level, (
        f"{by.title} at {level} takes {float(found):.4f} of the dense bytes; a level that keeps more would exceed the "
        f"budget of {state['within']:g}."
    )


def kept_weights_view(view: PruningTradeoffView, **state) -> SparsityView:
    """Return a view of the weights that the chosen point keeps of one layer; it follows the point and the layer.

    Parameters
    ----------
    view : what `explorer` returned.
    state : of the knobs of `SparsityView`, and ``query``, a link's query string.
    """
    linked = SparsityView(_weights(view), **state)
    linked.title = "Kept weights"
    if view.layer in dict(linked.knob("matrix").choices):
        linked.matrix = view.layer

    def follow(change):
        if change["name"] == "layer":
            if view.layer and linked.matrix != view.layer:
                linked.matrix = view.layer
        else:
            linked.offer(_weights(view))

    def lead(change):
        if view.layer != change["new"]:
            view.layer = change["new"]

    view.observe(follow, names=["model", "point", "layer"])
    linked.observe(lead, names="matrix")
    return linked


def _weights(view):
    """Return layer name -> function that returns its weights at the chosen point, all of them where none is chosen."""
    of, (by, _, level) = view.model, view.point.partition("@")

    def load(name):
        if not by:
            return linear_layers(source(of).load(), [name])[name].weight.detach().numpy()
        if not method(by).one_shot:
            raise ValueError(
                f"{method(by).title} pruning chooses the weights that stay while the model trains, so they are not "
                "known without that training. Choose a point of another method to see its weights."
            )
        return frontier.kept_weights(of, by, level, name)

    return {name: partial(load, name) for name in linear_layers(source(of).load())}


_known: dict[tuple[str, str, str], TradeoffPoint] = {}  # points that readers asked for, the latest last


def _computed(of, by, level, tell) -> TradeoffPoint:
    key = (of, by, level)
    if key not in _known:
        found = frontier.judged_point(source(of), method(by), level, tell, added=True)
        _known[key] = found
        while len(_known) > MOST_KNOWN:
            del _known[next(iter(_known))]
    return _known[key]
