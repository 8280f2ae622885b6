import numpy as np
import pytest
import scipy.sparse as sp

from kernels.matmul.dataflow import dataflow_steps
from widgets.figures.spgemm_scene import live_curve


@pytest.mark.parametrize("limit", [100, 3])
def test_live_curve_of_a_dataflow_ends_with_its_merge(limit):
    a = sp.csr_array(np.array([[1.0, 0, 2], [0, 0, 3], [4, 5, 0]]))
    b = sp.csr_array(np.array([[0.0, 6], [7, 0], [8, 9]]))
    curve = live_curve(dataflow_steps(a, b, "outer", limit=limit, bins=3), "outer")
    assert curve.live.max() == 7
    assert (curve.x[-1], curve.live[-1]) == (8, 6)
    assert np.all(np.diff(curve.x) > 0)
    assert live_curve(dataflow_steps(a, b, "row"), "row").live.tolist() == [1, 2, 2, 3, 4, 5, 6]
