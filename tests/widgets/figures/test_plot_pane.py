"""Live figures: freed after close, drawn from the page's own plotly.js, light to import."""

import gc
import subprocess
import sys

import plotly.graph_objects as go

from widgets.figures.plot_pane import PlotPane
from widgets.figures.sentence import say_instead


def test_panes_are_freed_after_close():
    for _ in range(3):
        pane = PlotPane()
        pane.close()
        pane.layout.close()
        del pane
    gc.collect()
    assert not [thing for thing in gc.get_objects() if issubclass(type(thing), PlotPane)]


def test_pane_sends_the_figure_and_its_words(sent):
    pane = PlotPane()
    start = sum(len(str(data)) for _, data, _ in sent)
    assert start < 40_000
    sent.clear()
    pane.show(go.Figure(go.Bar(x=[1, 2], y=[3, 4]), layout={"height": 250}), alt="Two bars.")
    state = sent[-1][1]["state"]
    assert state["alt"] == "Two bars." and state["height"] == 250 and '"type":"bar"' in state["spec"]
    pane.close()


def test_clicks_reach_python():
    pane, points = PlotPane(), []
    pane.on_click(points.extend)
    pane._receive(pane, {"type": "click", "points": [{"curve": 0, "index": 3, "x": 1, "y": 2}]}, [])
    assert points == [{"curve": 0, "index": 3, "x": 1, "y": 2}]
    pane.close()


def test_a_page_without_plotly_gets_it_from_the_package(sent):
    pane = PlotPane()
    sent.clear()
    pane._receive(pane, {"type": "plotly"}, [])
    assert len(sent[-1][2][0]) > 3_000_000 and sent[-1][1]["content"] == {"type": "plotly"}
    pane.close()


def test_importing_a_view_loads_nothing_heavy():
    heavy = ["torch", "pandas", "nbformat", "jsonschema", "networkx", "scipy.linalg"]
    code = f"import sys, widgets.views.sparsity; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_blank_figure_says_that_it_is_blank_and_a_sentence_is_its_own_alternative_text():
    pane = PlotPane()
    pane.show(go.Figure(), "Lines of nothing.")
    assert pane.alt == "There is nothing to draw here." and "nothing to draw" in pane.spec
    pane.show(go.Figure(go.Scatter(x=[], y=[])), "Lines of nothing.")
    assert pane.alt == "There is nothing to draw here."
    pane.show(say_instead(go.Figure(), "No thread has anything to do."), "Bars of threads.")
    assert pane.alt == "No thread has anything to do."
    for drawn in (go.Scatter(x=[1], y=[2]), go.Heatmap(z=[[1]]), go.Image(z=[[[1, 2, 3]]])):
        pane.show(go.Figure(drawn), "A point.")
        assert pane.alt == "A point."
    pane.close()
