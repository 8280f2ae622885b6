"""A plot without anything to draw is a sentence that says why."""

import textwrap

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
    """Tell whether a figure has neither a point nor a picture nor a word to show."""
    drawn = any(len(values) for trace in figure.data for values in _drawn(trace))
    return not drawn and not figure.layout.annotations and not figure.layout.shapes


def _drawn(trace):
    found = (getattr(trace, name, None) for name in ("x", "y", "z"))
    return [values for values in found if values is not None]
