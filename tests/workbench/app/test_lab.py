"""JupyterLab's server: the notebooks that came with the workbench are not saved over."""

import asyncio

import nbformat
import pytest
from tornado.web import HTTPError

from workbench import folders
from workbench.app.lab import ShippedNotebooksStay


@pytest.fixture
def contents(tmp_path):
    for path in ("papers/ours.ipynb", "papers/mine.ipynb"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(), tmp_path / path)
    (tmp_path / "text" / "papers").mkdir(parents=True)
    (tmp_path / "text" / "papers" / "ours.py").write_text("# %%")
    return ShippedNotebooksStay(root_dir=str(tmp_path))


def get(contents, path):
    return asyncio.run(contents.get(path))


def test_shipped_notebooks_open_read_only_and_are_not_saved(contents, tmp_path):
    model = get(contents, "papers/ours.ipynb")
    assert not model["writable"]
    before = (tmp_path / "papers" / "ours.ipynb").read_bytes()
    with pytest.raises(HTTPError, match="Save Notebook As"):
        asyncio.run(contents.save(model, "papers/ours.ipynb"))
    assert (tmp_path / "papers" / "ours.ipynb").read_bytes() == before
    assert not get(contents, "text/papers/ours.py")["writable"]


def test_own_notebooks_and_copies_of_shipped_ones_are_saved(contents):
    assert get(contents, "papers/mine.ipynb")["writable"]
    model = get(contents, "papers/ours.ipynb")
    asyncio.run(contents.save(model, "papers/my_ours.ipynb"))
    assert get(contents, "papers/my_ours.ipynb")["writable"]


def test_every_notebook_of_the_workbench_is_protected():
    contents = ShippedNotebooksStay(root_dir=str(folders.notebooks()))
    notebooks = [path.relative_to(folders.notebooks()) for path in folders.notebooks().glob("[!.]*/*.ipynb")]
    assert notebooks and not [path for path in notebooks if contents.is_writable(str(path))]
