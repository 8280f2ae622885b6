"""A pixel of a photograph and what it reads: windows, keys fused across windows, a summary, everything."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets

from widgets.figures.fact_table import fact_table
from widgets.figures.image_attention import ImageScene, covered, image_attention_figure
from widgets.figures.plot_pane import PlotPane
from widgets.views.view import View
from widgets.views.worker import Progress


class ImageAttentionView(View):
    """Explore the attention of one query of a picture; a click on a map asks that pixel, a click on a key shows it.

    A subclass gives ``knobs``, with whole numbers "row", "column" (the query) and "key" (-1 for none) among them.

    Parameters
    ----------
    source : ``source(state, progress) -> ImageScene``; all computing is there.
    recipe_lines : Python lines that make ``view``, given the state's differences from the defaults as keyword text.
    """

    title = "What a pixel reads"
    kind = "measured"

    def __init__(
        self,
        source: Callable[[Mapping[str, Any], Progress], ImageScene],
        *,
        recipe_lines: Callable[[str], str] = lambda words: f"view = ...  # {words}",
        **state,
    ):
        self._source, self._recipe = source, recipe_lines
        super().__init__(**state)

    # Picture --------------------------------------------------------------------------------------------------------
    def build(self):
        """Make the pane and the table of costs."""
        self.pane, self._facts = PlotPane(), ipywidgets.HTML()
        self.pane.title = "what the query reads"
        self.pane.on_click(self.picked)
        return [self.pane, self._facts]

    def compute(self, state, progress):
        """Ask the source."""
        return self._source(state, progress)

    def paint(self, scene):
        """Draw the maps and the costs."""
        self.pane.show(image_attention_figure(scene, self.theme), self.alt_text(scene))
        columns, rows = self.table(scene)
        shown = [(name, f"{keys:,}", f"{reach:.1%}", f"{share:.1%}", f"{n:,}") for name, keys, reach, share, n in rows]
        self._facts.value = fact_table(
            f"{scene.title}, query at row {scene.query[0]}, column {scene.query[1]}", columns, shown
        )

    def table(self, scene):
        """Return one row per kind of attention."""
        columns = (
            "attention",
            "keys per query (counted)",
            "pixels reached (counted)",
            "full attention's mass in reach (measured)",
            "multiply-adds of this query (counted)",
        )
        rows = [(r.name, r.keys, float(r.reached.mean()), covered(scene, r), r.products) for r in scene.readings]
        return columns, rows

    def arrays(self, scene):
        """Return every map and key grid."""
        found = {f"map {r.name}": r.heat for r in scene.readings}
        return found | {f"keys {r.name}": r.weights for r in scene.readings if r.weights is not None}

    def alt_text(self, scene):
        """Return how far each kind of attention reaches, in words."""
        parts = [f"{r.name} meets {r.keys:,} keys and reaches {r.reached.mean():.1%}" for r in scene.readings]
        return f"{scene.title}, query at row {scene.query[0]}, column {scene.query[1]}: " + "; ".join(parts) + "."

    def recipe(self):
        """Return Python that remakes the picture."""
        changed = {key: value for key, value in self.state.items() if value != self.knob(key).default}
        return self._recipe(", ".join(f"{key}={value!r}" for key, value in changed.items()))

    # Clicks ---------------------------------------------------------------------------------------------------------
    def picked(self, points: Sequence[Mapping]) -> None:
        """Take a click on a map (its pixel becomes the query) or on a key grid (the key is chosen)."""
        if not points or self.scene is None:
            return
        point = points[0]
        x, y = round(point["x"]), round(point["y"])
        meta = self.pane.figure.data[point["curve"]].meta
        if meta == "query":
            with self.changes():
                self.row, self.column = y, x
        else:
            side = next(r.weights.shape[1] for r in self.scene.readings if r.weights is not None)
            chosen = y * side + x
            self.key = -1 if chosen == self.key else chosen
