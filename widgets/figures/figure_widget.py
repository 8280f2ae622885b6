"""The house form of plotly's own FigureWidget. Most views want `widgets.figures.plot_pane.PlotPane` instead."""

import plotly.graph_objects as go
from plotly.basewidget import BaseFigureWidget

from widgets.figures.plot_pane import PlotPane

__all__ = ["FigureWidget", "PlotPane"]


class FigureWidget(go.FigureWidget):
    """Plotly's FigureWidget, freed after ``close()``.

    The stock class keeps every instance alive through a watcher on its JavaScript file; a plain string has no watcher.
    Each instance sends about 5 MB of JavaScript, so use it only where Python must edit traces in place; at most two a
    page. `PlotPane` draws the same figures for a few kilobytes and reports clicks, too. Importing this module takes a
    second more than the pane: plotly's widget drags nbformat in.
    """

    _esm = str(BaseFigureWidget._esm)
