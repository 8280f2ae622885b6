import numpy as np
import pytest

from workbench.bench import topk
from workbench.bench.runner import load_peers

LOADED = load_peers(topk.BENCH)[0]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("shape", [(1, 1001), (30, 64), (50, 4)])
def test_every_contender_passes_the_check(shape, dtype):
    case = topk._build(shape, dtype, 2, LOADED)
    assert {c.name for c in case.contenders} == {"ours", *LOADED}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    assert case.bytes == shape[0] * shape[1] * (np.dtype(topk.DTYPES[dtype]).itemsize + 1)


def test_the_check_sees_wrong_masks():
    scores = np.array([[1.0, 2, 2, 3], [4, 3, 2, 1]])
    check = topk._checker(scores, 2)
    good = np.array([[False, True, False, True], [True, True, False, False]])
    check("ours", good)
    check("x", good | (scores == 2) & [[True], [False]])
    for wrong, told in (
        (good[:1], "wanted"),
        (good.astype(int), "wanted"),
        (~good, "wrong side"),
        (good | (scores == 2) & [[True], [False]], "does not keep 2"),
    ):
        with pytest.raises(ValueError, match=told):
            check("ours", wrong)


def test_whole_arrays_and_rows_are_run():
    assert [case.name for case in topk._specs(True, 2, [])] == [
        "1x1048576/f32", "1536x384/f32", "1x1048576/f64", "1536x384/f64",
    ]  # fmt: skip
    assert len(topk._specs(False, 2, [])) == 8


def test_every_library_gets_the_threads_of_the_bench():
    import torch

    import kernels

    before = kernels.get_num_threads(), torch.get_num_threads()
    try:
        topk._set_threads(1, LOADED)
        assert (kernels.get_num_threads(), torch.get_num_threads()) == (1, 1)
    finally:
        kernels.set_num_threads(before[0])
        torch.set_num_threads(before[1])
