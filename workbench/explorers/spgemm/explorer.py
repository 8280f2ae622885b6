"""The explorer of sparse products: operands gathered from their folder, the machine and stories, joined to the view."""

from collections.abc import Mapping
from typing import Any

from widgets.controls.knob import Knob
from widgets.figures.spgemm_scene import TrafficScene
from widgets.views.spgemm_traffic import SpGEMMTrafficView, TrafficHooks
from workbench.explorers.entry_knobs import entry_knobs
from workbench.explorers.spgemm import knobs as shared
from workbench.explorers.spgemm import machine
from workbench.explorers.spgemm.scene import traffic_scene
from workbench.explorers.spgemm.source import load_pair, sources
from workbench.explorers.spgemm.stories import STORIES

__all__ = ["explorer"]

FIRST_OPERANDS = "rmat"


def explorer(*, query: str = "", **state) -> SpGEMMTrafficView:
    """Return the view of a product's dataflows, its traffic and a machine that runs it.

    It opens on a small R-MAT pair, step by step, unless something else is asked for.

    Parameters
    ----------
    query : a link's query string, which describes the whole state.
    state : values of knobs; they are those of `sources`, of `machine` and of the view.
    """
    hooks = TrafficHooks(
        operands=_operands(),
        relevant={key: tuple(knob.key for knob in source.knobs) for key, source in sources().items()},
        machine=machine.KNOBS,
        machine_name=machine.NAME,
        stories=STORIES,
        budget=_budget,
        recipe=lambda words: (
            f"from workbench.explorers.spgemm.explorer import explorer\n\nview = explorer({words})\nview.wait()\nview"
        ),
    )
    return SpGEMMTrafficView(_scene, hooks, query=query, **state)


def _operands() -> tuple[Knob, ...]:
    choices = tuple((key, source.title) for key, source in sources().items())
    menu = Knob("operands", "Operands", FIRST_OPERANDS, choices=choices, help="The matrices A and B to multiply.")
    return (menu, *entry_knobs(sources(), shared))


def _budget(state: Mapping[str, Any]) -> str | None:
    return sources()[state["operands"]].refuse(state) or machine.refuse(state)


def _scene(state: Mapping[str, Any], progress) -> TrafficScene:
    progress(0.0, "making the operands")
    source = sources()[state["operands"]]
    pair = load_pair(source.key, **{knob.key: state[knob.key] for knob in source.knobs})
    return traffic_scene(pair, state, progress)
