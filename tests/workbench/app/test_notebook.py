"""What the walk-throughs share: tables whose cells stay whole, pictures under titles, claims as records have them."""

import numpy as np
import pytest

from workbench import record
from workbench.app.notebook import claims, pictures, table
from workbench.papers import catalog


def test_a_bar_in_a_cell_stays_in_its_cell():
    assert table(["|a|", "b"], [[1, "x | y"]]).data.splitlines()[-1] == "| 1 | x \\| y |"


def test_pictures_are_drawn_under_their_titles():
    rgb = np.zeros((2, 3, 3), np.uint8)
    pane = pictures({"photo": rgb, "heat": np.array([[4.0, -9.0]])}, "two", root=True)
    assert [trace.type for trace in pane.figure.data] == ["image", "heatmap"] and pane.alt == "two"
    np.testing.assert_array_equal(pane.figure.data[1].z, [[2, 3]])
    assert [a.text for a in pane.figure.layout.annotations] == ["photo", "heat"]
    pane.close()


@pytest.mark.parametrize("key", catalog())
def test_every_claim_stands_beside_its_verdict(key):
    shown = claims(key).data
    for experiment in catalog()[key].experiments:
        for claim in record.read(key, experiment.key)["claims"]:
            assert claim["statement"].replace("|", "\\|") in shown
            assert f"**{claim['verdict']}**{record.because(claim)}" in shown
    assert shown.count("\n") == 1 + len(catalog()[key].claims)
