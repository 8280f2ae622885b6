"""Every number has one label and one unit, wherever it occurs; the page that explains them names them all."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from workbench import papers, record
from workbench.experiments import labels, runner
from workbench.paper import row

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "labels.md").read_text(encoding="utf-8")


def name_of(entry):
    return f"record {entry['paper']}/{entry['experiment']}"


@pytest.fixture(scope="module")
def published():
    """All records, and what their rows say of each quantity."""
    records, said = record.all_records(), {}
    for entry in records:
        labels.check(name_of(entry), entry["rows"], entry["kind"], said)
    return records, said


def test_all_records_agree_on_unit_and_label_of_each_quantity(published):
    records, said = published
    assert len(records) > 30 and len(said) > 150


def test_the_rows_of_a_tiny_run_agree_with_the_records(published):
    _, said = published
    for entry in runner.run("smash", size="tiny", only=["traffic", "structure"]):
        before = dict(said)
        labels.check("tiny run", entry["rows"], entry["kind"], before)
        new = {place[0] for place in before.keys() - said.keys()}
        assert not new, f"quantities that no record has: {new}"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row("cover", 0.5, "share", "counted")], "row 0: no unit 'share' for 'cover'; write 'fraction'"),
        ([row("size", 1, "", "counted")], "write 'number'"),
        ([row("size", 1, "windoes", "counted")], "did you mean 'windows'"),
        ([row("size", 1, "fraction per byte each", "counted")], "no unit"),
        ([row("time in hashing", 1.0, "ms", "counted")], "is 'counted'; write 'measured' or 'modelled'"),
        ([row("time", 1.0, "s", "measured")], "'time' is in 's'; write it in 'ms'"),
        ([row("largest tensor", 9, "elements", "counted")], "is in 'elements'; write it in 'bytes'"),
        ([row("test accuracy", 0.5, "fraction", "counted")], "is 'counted'; write 'measured'"),
        ([row("bytes, read_a", 9, "bytes", "measured")], "write 'counted'"),
        (
            [row("x", 1, "keys", "counted"), row("x", 1, "pairs", "counted")],
            "row 1: .* 'pairs', but 'keys' in .* row 0",
        ),
        ([row("x", 1, "keys", "counted"), row("x", 1, "keys", "measured")], "the label 'measured', but 'counted'"),
    ],
)
def test_a_contradiction_says_what_to_write(rows, words):
    with pytest.raises(ValueError, match=words):
        labels.check("experiment toy/counts", rows, "accuracy")


def test_a_quantity_that_depends_on_its_input_has_one_label_for_each():
    trained = row("density", 0.5, "fraction", "measured", input="trained heads")
    drawn = row("density", 0.5, "fraction", "counted", input="generator")
    labels.check("here", [trained, drawn], "accuracy")
    with pytest.raises(ValueError, match="the label 'counted', but 'measured'"):
        labels.check("here", [trained, drawn | {"input": "trained heads"}], "accuracy")


def test_time_is_modelled_where_a_machine_model_runs_and_measured_elsewhere():
    said = {}
    labels.check("a", [row("time", 1.0, "ms", "measured")], "timing", said)
    labels.check("b", [row("time", 1.0, "ms", "modelled")], "modelled", said)
    with pytest.raises(ValueError, match="the label 'modelled', but 'measured' in a, row 0"):
        labels.check("c", [row("time", 1.0, "ms", "modelled")], "timing", said)


@pytest.mark.parametrize("unit", ["ms", "keys", "bits per byte", "operations per second", "x", "number"])
def test_units_of_the_table(unit):
    assert labels.is_unit(unit)


@pytest.mark.parametrize("unit", ["second", "key", "bits/byte", "bits per bytes", "per byte", "keys per", "Bytes"])
def test_no_units_of_the_table(unit):
    assert not labels.is_unit(unit)


def test_a_cure_is_a_unit():
    assert all(labels.is_unit(unit) for unit in labels.INSTEAD.values())
    assert not any(labels.is_unit(unit) for unit in labels.INSTEAD)
    assert all(labels.is_unit(unit) for known in labels.QUANTITIES.values() for unit in known.units)


def test_the_runner_refuses_what_contradicts_the_table(toy, monkeypatch):
    wrong = [row("test accuracy", 0.5, "fraction", "counted")]
    experiment = replace(toy.experiments[0], run=lambda size, seed, matrix, report: wrong)
    monkeypatch.setattr(papers, "catalog", lambda: {"toy": replace(toy, experiments=(experiment,))})
    with pytest.raises(
        ValueError, match="experiment toy/speeds, row 0: 'test accuracy' is 'counted'; write 'measured'"
    ):
        runner.run("toy", only=["speeds"])


def test_the_page_explains_every_label_unit_and_verdict():
    text = " ".join(DOCS.split())
    assert set(labels.LABELS) == set(record.ROW_KINDS)
    for word, meaning in labels.LABELS.items():
        assert f"- **{word}** {meaning}" in text, word
    for word in record.VERDICTS:
        assert f"- **{word}**:" in text, word
    for unit, meaning in labels.MEASURES.items():
        assert f"| `{unit}` | {meaning} |" in text, unit
    for unit in labels.THINGS.values():
        assert f"`{unit}`" in text, unit
    for owner in record.OWNERS:
        assert f"`{owner}`" in DOCS, owner


def test_the_examples_of_the_page_stand_in_the_records(published):
    rows = {name_of(entry): entry["rows"] for entry in published[0]}
    examples = re.findall(r"^\| `(\w+/\w+)` \| ([^|]+) \| (\w+) \| (\w+) \|", DOCS, re.MULTILINE)
    assert len(examples) > 5
    for place, quantity, unit, label in examples:
        found = [r for r in rows[f"record {place}"] if r["quantity"] == quantity]
        assert found and all((r["unit"], r["kind"]) == (unit, label) for r in found), place
    for place, quantity in (
        ("xattention/samplers", r'"(lead in[^"]+)"'),
        ("xattention/samplers", r'"(standard[^"]+)"'),
    ):
        name = " ".join(re.search(quantity, DOCS).group(1).split())
        assert any(r["quantity"] == name for r in rows[f"record {place}"]), name
