"""The notebooks that the folder holds."""

from workbench.app.notebook_index import find, notebook_index


def test_the_index_reads_titles_and_survives_torn_files(folder):
    found = {notebook.name: notebook for notebook in notebook_index(folder)}
    assert found["echo"].title == "Echo"
    assert found["broken"].title == "Broken"
    assert "cannot be read" in found["torn"].description
    assert find(folder, "dashboards", "../secret") is None
