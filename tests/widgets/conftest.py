"""A small view, and a record of every message that widgets send."""

import time
from pathlib import Path

import comm
import numpy as np
import plotly.graph_objects as go
import pytest
from comm.base_comm import BaseComm

from widgets import theme
from widgets.controls.knob import Knob
from widgets.figures.plot_pane import PlotPane
from widgets.views.frame.view import BRUSH, View

WIDGETS = Path(__file__).resolve().parents[2] / "widgets"


class Wave(View):
    """A sine wave; ``slow`` spends time in small steps, ``stubborn`` in one piece, ``fail`` raises."""

    title = "Wave"
    kind = "modelled"
    knobs = (
        Knob("points", "Points", 100, low=10, high=100_000),
        Knob("frequency", "Frequency (Hz)", 1.0, low=0.1, high=10.0, tag="calibrated"),
        Knob("shape", "Shape", "sin", choices=(("sin", "sine"), ("cos", "cosine"))),
        Knob("filled", "Filled", False),
        Knob("slow", "Slow (ms)", 0, low=0, high=10_000),
        Knob("stubborn", "Stubborn (ms)", 0, low=0, high=10_000),
        Knob("fail", "Fail with", ""),
        *BRUSH,
    )
    paint_only = frozenset({"filled"})

    def __init__(self, **state):
        self.painted, self.computed = [], 0
        super().__init__(**state)

    def build(self):
        self.pane = PlotPane()
        return [self.pane]

    def budget(self, state):
        return "Wave: at most 50,000 points." if state["points"] > 50_000 else None

    def compute(self, state, progress):
        self.computed += 1
        if state["fail"]:
            raise ValueError(state["fail"])
        for i in range(state["slow"] // 10):
            progress(i / (state["slow"] // 10), "waiting")
            time.sleep(0.01)
        time.sleep(state["stubborn"] / 1000)
        x = np.linspace(0, 1, state["points"])
        return x, getattr(np, state["shape"])(2 * np.pi * state["frequency"] * x)

    def paint(self, scene):
        self.painted.append((len(scene[0]), self.filled))
        layout = {"template": theme.template(self.theme)}
        self.pane.show(go.Figure(go.Scatter(x=scene[0], y=scene[1]), layout=layout), self.alt_text(scene))

    def table(self, scene):
        return ("x", "y"), list(zip(*scene, strict=True))

    def alt_text(self, scene):
        return f"A wave of {len(scene[0])} points between {scene[1].min():.2f} and {scene[1].max():.2f}."

    def recipe(self):
        return "import numpy as np\nx = np.linspace(0, 1, 100)"


@pytest.fixture
def wave():
    """The small view's class."""
    return Wave


@pytest.fixture
def widgets_folder():
    return WIDGETS


class RecordingComm(BaseComm):
    """A connection to nobody that keeps what is sent."""

    log: list = []  # noqa: RUF012  one list for all connections of a test

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        type(self).log.append((msg_type, data or {}, list(buffers or [])))


@pytest.fixture
def sent(monkeypatch):
    """Return the list of (message type, data, buffers) that widgets send while the test runs."""
    monkeypatch.setattr(RecordingComm, "log", [])
    monkeypatch.setattr(comm, "create_comm", RecordingComm)
    return RecordingComm.log
