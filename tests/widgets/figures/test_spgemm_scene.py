import numpy as np
import pytest
import scipy.sparse as sp

from kernels.matmul.dataflow import dataflow_steps
from widgets.figures.spgemm_scene import live_curve


@pytest.mark.parametrize("limit", [100, 3])
def test_live_curve_begins_and_ends_with_nothing_kept(limit):
    a = sp.csr_array(np.array([[1.0, 0, 2], [0, 0, 3], [4, 5, 0]]))
    b = sp.csr_array(np.array([[0.0, 6], [7, 0], [8, 9]]))
    curve = live_curve(dataflow_steps(a, b, "outer", limit=limit, bins=3), "outer")
    assert curve.live.max() == 7
    assert (curve.x[0], curve.live[0], curve.x[-1], curve.live[-1]) == (0, 0, 7, 0)
    assert np.all(np.diff(curve.x[:-1]) > 0)
    rows = live_curve(dataflow_steps(a, b, "row", windows=[0, 1, 2]), "row")
    assert rows.live.tolist() == [0, 1, 2, 2, 1, 2, 1, 2, 0] and rows.x.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 7]


def test_live_curve_of_nothing_has_no_point():
    nothing = live_curve(dataflow_steps(sp.csr_array((2, 3)), sp.csr_array((3, 2)), "row"), "row")
    assert len(nothing.x) == len(nothing.live) == 0
