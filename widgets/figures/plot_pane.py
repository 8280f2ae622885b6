"""Live plotly figures on a page, for a few kilobytes each."""

from pathlib import Path

import anywidget
import plotly.graph_objects as go
import plotly.io
import traitlets

from widgets import theme
from widgets.figures.sentence import is_blank, say_instead, sentence_of

_HERE = Path(__file__).parent


class PlotPane(anywidget.AnyWidget):
    """Draws plotly figures with the plotly.js that the page already has; updates in place, without flicker.

    JupyterLab and Voila load plotly.js once as plotly's own static extension; a front end without it asks this process
    for the copy inside the plotly package. Nothing comes from the network.

    A figure whose ``layout.meta`` holds ``preview`` shows other marks while the pointer is over a curve, in the browser
    alone: ``curve`` is the number of the trace, a grid of ``columns``; ``points`` are lists x and y per cell, which the
    numbered ``traces`` take. One whose ``layout.meta`` holds ``leastWidth`` is never narrower, in pixels; a narrow page
    scrolls it.

    Parameters
    ----------
    alt : what the figure shows, in words, for readers who do not see it; shown itself where there is nothing to draw.
    """

    _esm = theme.PANE + (_HERE / "plot_pane.js").read_text(encoding="utf-8")
    _css = theme.css() + (_HERE / "plot_pane.css").read_text(encoding="utf-8")

    spec = traitlets.Unicode("").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    height = traitlets.Int(360).tag(sync=True)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.figure: go.Figure | None = None
        self._on_click = []
        self.on_msg(self._receive)

    def show(self, figure: go.Figure, alt: str = "") -> None:
        """Draw ``figure``; a figure drawn before is changed in place, and a blank one says that it is."""
        if is_blank(figure):
            figure = say_instead(go.Figure(figure), "There is nothing to draw here.")
        self.figure = figure
        with self.hold_sync():
            self.alt = sentence_of(figure) or alt
            self.height = int(figure.layout.height or 360)
            self.spec = plotly.io.to_json(figure, validate=False)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show: no figure yet, or a sentence in its place."""
        return self.figure is None or bool(sentence_of(self.figure))

    def on_click(self, callback) -> None:
        """Call ``callback(points)`` when a reader clicks; a point is a dict of curve, index, x and y."""
        self._on_click.append(callback)

    def save(self, filename: str, image_format: str) -> None:
        """Have the browser save the figure as it stands; ``image_format`` is ``"png"`` or ``"svg"``."""
        self.send({"type": "save", "filename": filename, "format": image_format})

    def close(self) -> None:
        """Take the pane off the page and let it be freed."""
        self._on_click.clear()
        self.on_msg(self._receive, remove=True)
        super().close()

    def _receive(self, _, content, buffers):
        if content.get("type") == "click":
            for callback in list(self._on_click):
                callback(content["points"])
        elif content.get("type") == "plotly":
            from plotly.offline import get_plotlyjs

            self.send({"type": "plotly"}, [get_plotlyjs().encode()])
