"""The explorer of sparse products: operands gathered from their folder, the machine and stories, joined to the view."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from widgets.controls.knob import Knob
from widgets.controls.upload import UploadField
from widgets.figures.spgemm_scene import TrafficScene
from widgets.views.spgemm_traffic import SpGEMMTrafficView, TrafficHooks
from workbench.data.limits import LIBRARY, VISITOR
from workbench.data.matrix_files import ENDINGS, READ
from workbench.explorers.entry_knobs import entry_knobs
from workbench.explorers.spgemm import knobs as shared
from workbench.explorers.spgemm import machine
from workbench.explorers.spgemm.scene import traffic_scene
from workbench.explorers.spgemm.source import Pair, load_pair, sources
from workbench.explorers.spgemm.stories import STORIES
from workbench.explorers.spgemm.uploads import FILE, Uploads

__all__ = ["explorer"]

FIRST_OPERANDS = "rmat"


def explorer(*, files: Sequence[str | Path] = (), query: str = "", **state) -> SpGEMMTrafficView:
    """Return the view of a product's dataflows, its traffic and a machine that runs it.

    It opens on a small R-MAT pair, step by step, unless something else is asked for.

    Parameters
    ----------
    files : paths of your own matrices in any form that `workbench.data.matrix_files` reads: A, or A and B. It opens on
        them, with B = A where there is one.
    query : a link's query string, which describes the whole state.
    state : values of knobs; they are those of `sources`, of `machine` and of the view.
    """
    own = Uploads()
    for take, path in zip((own.take_a, own.take_b), files, strict=False):
        take(Path(path).name, path, LIBRARY)
    if files and not query:
        state.setdefault("operands", FILE)

    def recipe(words):
        given = ", ".join(filter(None, (f"files={own.names}" if f"operands={FILE!r}" in words else "", words)))
        lines = (
            "from workbench.explorers.spgemm.explorer import explorer",
            "",
            f"view = explorer({given})",
            "view.wait()",
        )
        return "\n".join((*lines, "view"))

    hooks = TrafficHooks(
        operands=_operands(),
        relevant={key: tuple(knob.key for knob in source.knobs) for key, source in sources().items()},
        uploads=[
            UploadField(label=label, endings=ENDINGS, limit_bytes=VISITOR.file_bytes, received=take)
            for label, take in (
                (f"Your own matrix A: {READ}", own.take_a),
                ("Your own matrix B, if it is not A again", own.take_b),
            )
        ],
        file_choice=FILE,
        machine=machine.KNOBS,
        machine_name=machine.NAME,
        stories=STORIES,
        budget=_budget,
        recipe=recipe,
    )

    def scene(state: Mapping[str, Any], progress) -> TrafficScene:
        progress(0.0, "making the operands")
        return traffic_scene(own.pair() if state["operands"] == FILE else _pair(state), state, progress)

    return SpGEMMTrafficView(scene, hooks, query=query, **state)


def _operands() -> tuple[Knob, ...]:
    choices = (*((key, source.title) for key, source in sources().items()), (FILE, "Your own files"))
    menu = Knob("operands", "Operands", FIRST_OPERANDS, choices=choices, help="The matrices A and B to multiply.")
    return (menu, *entry_knobs(sources(), shared))


def _budget(state: Mapping[str, Any]) -> str | None:
    source = sources().get(state["operands"])
    return (source.refuse(state) if source else None) or machine.refuse(state)


def _pair(state: Mapping[str, Any]) -> Pair:
    source = sources()[state["operands"]]
    return load_pair(source.key, **{knob.key: state[knob.key] for knob in source.knobs})
