"""What the walk-throughs have in common: tables, figures, rows of pictures, and a paper's claims beside ours."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from IPython.display import Markdown

from widgets.figures.plot_pane import PlotPane
from widgets.theme import template
from workbench import papers, record


def table(columns: Sequence, rows: Sequence[Sequence]) -> Markdown:
    """Return a table; cells may hold Markdown and formulas."""
    lines = [columns, ["---"] * len(columns), *rows]
    return Markdown(
        "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
    )


def show(figure: go.Figure, alt: str) -> PlotPane:
    """Draw a figure in the house's colours; ``alt`` says in words what it shows."""
    pane = PlotPane()
    pane.show(figure.update_layout(template=template()), alt)
    return pane


def pictures(arrays: Mapping[str, np.ndarray], alt: str, *, height: int = 340, root: bool = False) -> PlotPane:
    """Draw arrays side by side, each under its title: colour pictures as they are, others as heat maps.

    Parameters
    ----------
    arrays : title -> (rows, columns) numbers, or (rows, columns, 3) uint8.
    alt : what they show, in words.
    height : pixels.
    root : whether heat maps show square roots of sizes, so that small values can be seen.
    """
    figure = go.Figure().set_subplots(1, len(arrays), subplot_titles=list(arrays), horizontal_spacing=0.04)
    for place, values in enumerate(map(np.asarray, arrays.values()), start=1):
        at = {"row": 1, "col": place}
        if values.ndim == 3:
            figure.add_image(z=values, **at)
        else:
            z = values.astype(float)
            figure.add_heatmap(z=np.sqrt(np.abs(z)) if root else z, colorscale="Blues", showscale=False, **at)
        bare = {"constrain": "domain", "showgrid": False}
        figure.update_yaxes(autorange="reversed", scaleanchor=figure.data[-1].xaxis, **bare, **at)
        figure.update_xaxes(**bare, **at)
    return show(figure.update_layout(height=height, margin={"t": 40, "b": 20}), alt)


def claims(key: str) -> Markdown:
    """Return every claim of a paper beside what our records say, as a table.

    Raises
    ------
    KeyError : no such paper. FileNotFoundError : an experiment has no record; says how to make it.
    """
    paper = papers.get(key)
    found = [claim for experiment in paper.experiments for claim in record.read(key, experiment.key)["claims"]]
    whose = {"paper": "", "workbench": " (our own claim)"}
    parts = ("statement", "where", "paper_value", "tag", "ours")
    return table(
        ["claim", "where", "paper", "how sure of it", "ours", "verdict"],
        [[*(c[part] for part in parts), f"**{c['verdict']}**{record.because(c)}{whose[c['whose']]}"] for c in found],
    )
