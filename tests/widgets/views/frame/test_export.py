"""Exports open in what they are meant for and hold the plotted data; the page needs no network."""

import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest


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
    view._from_page({"type": "export", "key": "e0"})
    assert sent[-1][1]["content"] == {"type": "save", "filename": "wave.png", "format": "png"}


def test_menu_sends_bytes(wave, sent):
    view = wave()
    key = next(key for key, (label, _) in view._export_makers().items() if label == "Data (CSV)")
    view._from_page({"type": "export", "key": key})
    _, data, buffers = sent[-1]
    assert data["content"] == {"type": "download", "filename": "wave.csv", "mime": "text/csv"}
    assert bytes(buffers[0]) == view.export("Data (CSV)")[2]


def test_unknown_export_is_named(wave):
    with pytest.raises(ValueError, match="there are PNG, SVG, Data"):
        wave().export("PDF")
