from pathlib import Path

from workbench import folders

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkout_keeps_records_and_notebooks_beside_the_code():
    assert folders.checkout() == ROOT
    assert folders.published() == folders.shipped() == ROOT / "workbench" / "results"
    assert folders.notebooks() == ROOT / "notebooks"


def test_an_installed_package_writes_only_into_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "PACKAGE", tmp_path / "site" / "workbench")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    assert folders.checkout() is None
    assert folders.published() == tmp_path / "home" / "published"
    assert folders.notebooks() == tmp_path / "site" / "workbench" / "notebooks"
    assert folders.cache() == tmp_path / "home" / "cache"


def test_without_a_chosen_home_the_systems_places_are_taken(monkeypatch):
    monkeypatch.delenv("WORKBENCH_HOME", raising=False)
    assert folders.home().name == folders.cache().name == "sparse-workbench"
    assert folders.home() != folders.cache()
