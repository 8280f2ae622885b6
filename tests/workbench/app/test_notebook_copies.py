import json

import pytest

from workbench import folders
from workbench.app.notebook_copies import make_copy, notebook_paths


@pytest.fixture
def books(tmp_path, monkeypatch):
    root = tmp_path / "notebooks"
    for place in ("start_here", "papers/smash", "dashboards/patterns"):
        path = root / f"{place}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": place}))
    monkeypatch.setattr(folders, "notebooks", lambda: root)
    return tmp_path


def test_every_notebook_has_a_key(books):
    assert set(notebook_paths()) == {"start_here", "smash", "patterns"}


def test_a_copy_is_never_overwritten(books):
    first = make_copy("smash", books)
    assert first.name == "my_smash.ipynb" and json.loads(first.read_text()) == {"name": "papers/smash"}
    first.write_text("my answers")
    assert [make_copy("smash", books).name for _ in range(2)] == ["my_smash_2.ipynb", "my_smash_3.ipynb"]
    assert first.read_text() == "my answers"


def test_a_misspelt_key_names_the_nearest(books):
    with pytest.raises(KeyError, match="did you mean 'smash'"):
        make_copy("smahs", books)
    with pytest.raises(FileNotFoundError, match="make it first"):
        make_copy("smash", books / "absent")


def test_the_workbench_has_its_tour():
    assert "start_here" in notebook_paths()
