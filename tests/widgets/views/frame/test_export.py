"""Exports open in what they are meant for and hold the plotted data; the page needs no network."""

import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest

from widgets.views.frame.export import csv_bytes, file_name


class Resources(HTMLParser):
    """Collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.found, self.tags = [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag in ("link", "image", "use")):
                self.found.append(value)


def test_csv_is_the_table(wave):
    view = wave(points=20)
    filename, mime, content = view.export("Data (CSV)")
    lines = list(csv.reader(io.StringIO(content.decode())))
    assert (filename, mime, lines[0]) == ("wave.csv", "text/csv", ["x", "y"])
    np.testing.assert_array_equal(np.array(lines[1:], dtype=float), np.stack(view.scene, axis=1))


def test_npz_is_the_data(wave):
    view = wave(points=20)
    loaded = np.load(io.BytesIO(view.export("Data (NPZ)")[2]))
    np.testing.assert_array_equal(loaded["x"], view.scene[0])
    np.testing.assert_array_equal(loaded["y"], view.scene[1])


def test_page_holds_figure_words_and_table_and_loads_nothing(wave):
    view = wave(points=20)
    _, mime, content = view.export("Page (HTML, offline)")
    page = content.decode()
    resources = Resources()
    resources.feed(page)
    assert mime == "text/html" and resources.found == []
    assert {"title", "table", "pre", "h1"} <= resources.tags
    assert "A wave of 20 points" in page and "modelled" in page and page.count("<tr>") == 21
    assert {"section", "figure", "figcaption", "h2"} <= resources.tags
    assert not re.search(r"@import|url\(\s*['\"]?https?:", page[: page.index("<script")])


def test_python_is_the_recipe(wave):
    filename, _, content = wave().export("Python (5 lines)")
    assert filename == "wave.py"
    exec(compile(content, filename, "exec"), {})


def test_plotly_images_come_from_the_browser(wave, sent):
    view = wave()
    with pytest.raises(ValueError, match="drawn by the browser"):
        view.export("PNG")
    sent.clear()
    view._from_page({"type": "export", "key": "PNG"})
    assert sent[-1][1]["content"] == {"type": "save", "filename": "wave.png", "format": "png"}


def test_menu_sends_bytes(wave, sent):
    view = wave()
    view._from_page({"type": "export", "key": "Data (CSV)"})
    _, data, buffers = sent[-1]
    assert data["content"] == {"type": "download", "filename": "wave.csv", "mime": "text/csv"}
    assert bytes(buffers[0]) == view.export("Data (CSV)")[2]


def test_unknown_export_is_named(wave):
    with pytest.raises(ValueError, match="there are PNG, SVG, Data"):
        wave().export("PDF")


def test_a_picture_without_a_mark_is_left_out_and_a_sentence_on_the_page(wave):
    view = wave(points=20)
    pane = next(iter(view.parts().values()))
    for nothing in (go.Figure(), go.Figure(go.Scatter(x=[], y=[])), go.Figure(go.Bar(x=["a"], y=[float("nan")]))):
        nothing.update_layout(title="Waves<br><span>of water</span>")
        pane.show(nothing, "Alt.")
        view._show_exports()
        assert pane.is_empty and pane.alt == "There is nothing to draw here."
        assert view.export_labels == ("Data (CSV)", "Data (NPZ)", "Page (HTML, offline)", "Python (5 lines)")
        assert list(view.export_labels) == view._toolbar.exports
        page = view.export("Page (HTML, offline)")[2].decode()
        assert "plotly" not in page and "There is nothing to draw here." in page
    pane.layout.display = "none"
    assert view.parts() == {}


def test_pictures_whose_marks_are_no_heights_are_drawn(wave):
    pane = next(iter(wave(points=20).parts().values()))
    figures = (go.Bar(x=[1, 2], y=["a", "b"], orientation="h"), go.Heatmap(z=[[0]]), go.Histogram(x=[1, 2]),
               go.Image(z=[[[0, 0, 0]]]), go.Table(cells={"values": [[1]]}), go.Scatter(x=[1], y=[0]))  # fmt: skip
    for trace in figures:
        pane.show(go.Figure(trace), "Alt.")
        assert not pane.is_empty and pane.alt == "Alt." and pane.spec


def test_settings_are_told_as_they_were_chosen(wave):
    view = wave(shape="cos", filled=True)
    told = dict(view.settings())
    assert told["Shape"] == "cosine" and told["Filled"] == "yes" and told["Brushed rows"] == ""
    page = view.export("Page (HTML, offline)")[2].decode()
    assert "<li>Shape: cosine</li>" in page and "Brushed rows" not in page


def test_csv_cells_are_plain_numbers():
    rows = [(np.float64(1e6), np.int64(12345), True, np.bool_(False), float("nan"), np.float32(0.5))]
    lines = csv_bytes("abcdef", rows).decode().splitlines()
    assert lines == ["a,b,c,d,e,f", "1000000.0,12345,1,0,,0.5"]


RESERVED = set('<>:"/\\|?*') | {chr(i) for i in range(32)}
ODD_NAMES = [
    *("a:b", "con", "NUL.txt", "COM1", "lpt9.mtx", "..", "", " ", "a/b\\c", "x" * 500, "ж" * 500, "trailing. ", "-"),
    *("матрица", "a\nb", 'q"?*<>|', "../../etc/passwd", "C:\\x", "😀", "name.with.points", "CON:3", "aux-3"),
]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("title", ["", "SpGEMM traffic", "A: B"])
def test_file_names_are_valid_everywhere(title, name):
    made = file_name(title, name, ".png")
    assert made.endswith(".png") and not set(made) & RESERVED and made == made.strip(" .")
    assert len(made.encode()) <= 255 and len(made) > len(".png")
    first = made.split(".")[0].lower()
    assert first not in {"con", "prn", "aux", "nul"} | {f"{port}{i}" for port in ("com", "lpt") for i in range(10)}
    assert file_name("", "матрица", ".mtx") == "матрица.mtx"
