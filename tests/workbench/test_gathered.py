"""Adding a paper or a method adds files and edits none: guests in a temporary folder are found everywhere."""

import pytest
from typer.testing import CliRunner

import workbench.explorers.attention.methods
import workbench.papers
from workbench import folders, record
from workbench.app import doctor
from workbench.app.cli import app
from workbench.app.gallery import gallery_cards
from workbench.explorers.attention import explorer, method
from workbench.gathered import exporting, find, gathered

ENTRY = """
from workbench.paper import Claim, Experiment, Paper, row, view_in


def _counts(size, seed, report=lambda fraction, step: None):
    return [row("stored entries", 3, "entries", "counted")]


PAPER = Paper(
    key="guest", title="A guest's paper", authors="A. Guest", year=2026, arxiv="", family="visitors", summary="Visits.",
    state="complete", view=view_in("attention", method="guest_method", input="slash", tokens=64),
    claims=(Claim(key="three", statement="There are three.", where="section 1", paper_value="3", tag="published",
                  experiment="counts", judge=lambda rows: (str(rows[0]["value"]), "reproduced")),),
    experiments=(Experiment(key="counts", title="How many there are", kind="accuracy", run=_counts),),
)
"""
EXERCISES = """
from workbench.grading.exercise import Exercise

EXERCISES = (Exercise(name="three", question="How many?", given=lambda rng: 3, answer=lambda g: g, hints=("A", "B")),)
"""
METHOD = """
from widgets.controls.knob import Knob
from widgets.views.attention_mask import Story
from workbench.explorers.attention import cost
from workbench.explorers.attention.method import Method
from workbench.explorers.attention.methods.formula import METHOD as formula

METHOD = Method(
    key="guest_method", title="A guest's method", knobs=(Knob("lag", "Lag (tokens)", 3, 0, 9, 1),),
    trace=lambda given, s: formula.trace(given, s | {"formula": f"q - k == {s['lag']}"}), runs=cost.run_pairs,
    stories=(Story("Nine back", {"input": "slash", "tokens": 64, "lag": 9}, "A diagonal."),),
)
"""


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


def forget():
    for kept in (workbench.papers.catalog, method.methods, method.offered, method.compared, explorer.view_class):
        kept.cache_clear()


@pytest.fixture
def guests(tmp_path, monkeypatch):
    paper = {"guest/__init__.py": "", "guest/entry.py": ENTRY, "guest/exercises.py": EXERCISES}
    house = [
        (workbench.papers, write(tmp_path / "papers", paper)),
        (workbench.explorers.attention.methods, write(tmp_path / "methods", {"guest_method.py": METHOD})),
    ]
    for package, folder in house:
        monkeypatch.setattr(package, "__path__", [*package.__path__, folder])
    monkeypatch.setattr(folders, "checkout", lambda: tmp_path)
    monkeypatch.setattr(folders, "published", lambda: tmp_path / "results")
    monkeypatch.setattr(folders, "shipped", lambda: tmp_path / "results")
    forget()
    yield
    monkeypatch.undo()
    forget()


def test_a_guest_paper_is_in_catalog_command_line_gallery_and_doctor(guests, tmp_path):
    assert workbench.papers.get("guest").title == "A guest's paper"
    listed = CliRunner().invoke(app, ["papers"])
    assert listed.exit_code == 0 and "guest" in listed.output
    assert "guest" in {card.key for card in gallery_cards(tmp_path)}
    found = next(finding for finding in doctor.examine() if finding.subject == "papers")
    assert found.state == "good" and "guest" in found.found


def test_a_guests_run_makes_a_record_and_a_line_in_the_ledger(guests, tmp_path):
    done = CliRunner().invoke(app, ["run", "guest", "--size", "full", "--publish"])
    assert done.exit_code == 0, done.output
    claim = record.read("guest", "counts")["claims"][0]
    assert (claim["ours"], claim["verdict"]) == ("3", "reproduced")
    assert "A guest's paper" in (tmp_path / "RESULTS.md").read_text()
    assert "There are three." in (tmp_path / "results" / "guest" / "README.md").read_text()


def test_a_guests_exercises_are_found(guests):
    from workbench.app.exercises import check, given

    assert given("guest/three") == 3 and check("guest/three", 3)


def test_a_guest_method_is_in_the_menus_and_is_drawn(guests):
    knobs = {knob.key: knob for knob in explorer.view_class().knobs}
    for menu in ("method", "compare_with"):
        assert ("guest_method", "A guest's method") in knobs[menu].choices
    view = workbench.papers.get("guest").view().wait()
    try:
        assert view.error == "" and view.scene.result.allowed.nonzero()[0].tolist() == list(range(3, 64))
        assert "lag" in {knob.key for knob in view._shown_knobs()}
        view._story_chosen("0")
        assert view.wait().lag == 9 and "lag=9" in view.query
    finally:
        view.close()


def test_a_second_definition_of_a_knob_is_an_error(guests, tmp_path):
    (tmp_path / "methods" / "second.py").write_text(METHOD.replace("guest_method", "second").replace("Lag", "Other"))
    with pytest.raises(ValueError, match="defines the knob 'lag' again"):
        explorer.view_class()


def test_keys_equal_names_and_misspelt_ones_get_the_nearest(guests, tmp_path):
    (tmp_path / "papers" / "other").mkdir()
    (tmp_path / "papers" / "other" / "__init__.py").touch()
    assert "other" not in exporting("workbench.papers", "entry")  # no entry.py: no paper
    (tmp_path / "papers" / "other" / "entry.py").write_text(ENTRY)
    with pytest.raises(ImportError, match="folder other has key 'guest'"):
        gathered("workbench.papers", "PAPER", file="entry")
    problems = {}
    assert "guest" in gathered("workbench.papers", "PAPER", file="entry", problems=problems)
    assert "must equal the name" in problems["other"]
    with pytest.raises(KeyError, match="did you mean 'guest'"):
        find("paper", "gest", {"guest": 1})
