"""Titles and legends that a narrow page still shows."""

import plotly.graph_objects as go

from widgets.figures.layout import LEGEND_BELOW, title_at_left


def test_a_title_begins_at_the_left_of_the_pane_and_has_a_second_line_only_if_given():
    one, two = (go.Figure(layout={"title": title_at_left("Bytes", *more)}).layout.title for more in ((), ("of each",)))
    assert (one.text, one.x, one.xref, one.xanchor) == ("Bytes", 0, "container", "left")
    assert two.text == "Bytes<br><span style='font-size:13px'>of each</span>"


def test_a_legend_below_reads_as_the_traces_were_added():
    legend = go.Figure(layout={"legend": LEGEND_BELOW}).layout.legend
    assert (legend.yref, legend.y, legend.yanchor, legend.traceorder) == ("container", 0, "bottom", "normal")
