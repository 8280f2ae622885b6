"""The pictures of the gallery's cards."""

import re
from xml.etree import ElementTree

from workbench import folders
from workbench.app import thumbnails
from workbench.app.notebook_index import notebook_index


def test_every_card_has_a_well_formed_picture(server):
    for kind, name in (("dashboards", "echo"), ("papers", "unknown")):
        status, headers, text = server.get(f"/thumbnail/{kind}/{name}")
        assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
        assert ElementTree.fromstring(text).tag.endswith("svg")


def test_thumbnail_draws_the_rows_of_a_record():
    time = {"quantity": "time", "unit": "ms", "kind": "modelled", "matrix": "W0"}
    rows = [{**time, "value": v, "version": f"V{v}"} for v in (1, 2, 4)]
    rows += [{**time, "quantity": "tokens", "unit": "", "value": v, "version": f"V{v}"} for v in (1, 2, 3, 4)]
    drawn = thumbnails._bars(rows, {})
    assert [float(bar) for bar in re.findall(r'<rect[^>]*width="([\d.]+)"', drawn)] == [33.8, 67.5, 135.0]
    assert "time [ms]" in drawn and "modelled" in drawn and "V4" in drawn
    some = [row for row in rows if row["quantity"] == "time" and row["value"] != 2]
    drawn = thumbnails._bars(some, {"version": ["V4", "V1"]})
    assert re.findall(">(V.)<", drawn) == ["V4", "V1"]
    assert thumbnails._bars([], {}) == thumbnails._bars(rows[:1], {}) == ""


def test_the_card_of_smash_shows_the_time_of_its_three_versions():
    drawn = thumbnails.thumbnail(folders.notebooks(), "papers", "smash").content.decode()
    words = re.findall(">([^<]+)</text>", drawn)
    assert words[:2] == ["time [ms]", "modelled"] and words[2::2] == ["V1", "V2", "V3"]
    masks = thumbnails.thumbnail(folders.notebooks(), "dashboards", "attention_masks")
    assert masks.mime == "image/png" and masks.content.startswith(b"\x89PNG")


def test_every_papers_card_shows_the_rows_that_it_names():
    for notebook in notebook_index(folders.notebooks()):
        if notebook.kind == "papers":
            assert notebook.thumbnail.startswith("record:"), notebook.name
            drawn = thumbnails.thumbnail(folders.notebooks(), "papers", notebook.name).content.decode()
            named = notebook.thumbnail.count("|") + 1
            assert drawn.count("<rect") - 1 == (named if named > 1 else 3), notebook.name
