"""The comparison that every test uses must itself be able to fail."""

import numpy as np
import pytest
import scipy.sparse as sp

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (np.float32([1, 2]), np.float32([1, 2 + 1e-5])),
        (np.float32([1, 2]), np.float64([1, 2 + 1e-5])),
        (np.float16([1]), np.float64([1.001])),
        (np.float64([1e-20, 1]), np.float64([0, 1])),
        (np.float64([NAN, INF, -INF]), np.float64([NAN, INF, -INF])),
        (np.int64([1, 2]), np.int32([1, 2])),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        (3, 3),
        (sp.csr_array(np.eye(3)), sp.coo_array(np.eye(3))),
    ],
)
def test_it_passes(assert_close, found, wanted):
    assert_close(found, wanted)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (np.float64([1, 2]), np.float64([1, 2 + 1e-9])),
        (np.float32([1, 2]), np.float32([1, 2.001])),
        (np.float64([NAN]), np.float64([1])),
        (np.float64([1]), np.float64([NAN])),
        (np.float64([INF]), np.float64([-INF])),
        (np.float64([INF]), np.float64([1])),
        (np.float64([1]), np.float64([INF])),
        (np.float64([NAN]), np.float64([INF])),
        (np.int64([2**60]), np.int64([2**60 + 1])),
        (np.zeros(2), np.zeros(3)),
        (np.zeros((1, 3)), np.zeros(3)),
        (sp.csr_array(np.eye(3)), np.eye(3)),
        (sp.csr_array(np.eye(3)), sp.csr_array(2 * np.eye(3))),
        (sp.csr_array((np.zeros(1), ([0], [0])), shape=(2, 2)), sp.csr_array((2, 2))),
    ],
)
def test_it_fails(assert_close, found, wanted):
    with pytest.raises(AssertionError):
        assert_close(found, wanted)


def test_torch_tensors(assert_close):
    torch = pytest.importorskip("torch")
    one = torch.ones(3, dtype=torch.bfloat16)
    assert_close(one, np.ones(3))
    with pytest.raises(AssertionError):
        assert_close(one * 1.1, np.ones(3))
