"""A plot without anything to draw is a sentence that says why."""

import textwrap

import numpy as np
import plotly.graph_objects as go

SENTENCE_HEIGHT = 200


def say_instead(figure: go.Figure, why: str) -> go.Figure:
    """Return the figure with its title, and in place of axes and curves the sentence ``why``.

    Parameters
    ----------
    figure : with its layout; it is changed.
    why : a whole sentence.
    """
    figure.data = figure.layout.annotations = figure.layout.shapes = ()
    figure.update_layout(showlegend=False, height=SENTENCE_HEIGHT, meta={"sentence": why})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    text = "<br>".join(textwrap.wrap(why, 44))
    return figure.add_annotation(
        text=text, x=0, y=1, xref="paper", yref="paper", xanchor="left", yanchor="top", align="left", showarrow=False
    )


def sentence_of(figure: go.Figure) -> str:
    """Return the sentence that stands in place of a plot, "" where there is a plot."""
    return (figure.layout.meta or {}).get("sentence", "")


def is_blank(figure: go.Figure) -> bool:
    """Tell whether a figure has neither a mark nor a picture nor a word to show."""
    return not (any(map(_has_marks, figure.data)) or figure.layout.annotations or figure.layout.shapes)


def _has_marks(trace) -> bool:
    """Tell whether a trace draws anything: a number among its cells or heights, or what has neither."""
    values = getattr(trace, "z", None)
    values = getattr(trace, "y", None) if values is None else values
    if values is None:
        return trace.type not in ("scatter", "bar", "heatmap", "image") or getattr(trace, "x", None) is not None
    values = np.asarray(values)
    return bool(np.isfinite(values).any() if values.dtype.kind in "biuf" else values.size)
