"""The paper's table of memory, to the digits that it prints, and what each setting changes."""

import pytest

from workbench.models.fine_tuning.sltrain_memory import LLAMAS, Llama, memory_report

TABLE = [  # parameters in millions: full, low rank, SLTrain, S; gigabytes: full, low rank, SLTrain
    ("60M", 128, 0.03, (58.07, 42.77, 43.53, 0.76), (0.348, 0.257, 0.267)),
    ("130M", 256, 0.03, (134.11, 94.00, 96.55, 2.55), (0.805, 0.564, 0.600)),
    ("350M", 256, 0.03, (367.97, 185.22, 194.29, 9.07), (2.208, 1.111, 1.238)),
    ("1B", 512, 0.03, (1339.08, 609.31, 645.55, 36.24), (8.034, 3.656, 4.163)),
    ("7B", 1024, 0.05, (6738.42, 2820.94, 3144.74, 323.80), (40.43, 16.93, 21.46)),
]


@pytest.mark.parametrize(("name", "r", "delta", "millions", "gigabytes"), TABLE)
def test_table_of_the_paper(name, r, delta, millions, gigabytes):
    found = [memory_report(LLAMAS[name], method, r=r, delta=delta) for method in ("full", "low_rank", "sltrain")]
    counts = [each.parameters / 1e6 for each in found] + [found[2].sparse / 1e6]
    assert counts == pytest.approx(millions, abs=0.0051)
    digits = 0.0051 if name == "7B" else 0.00051
    assert [each.stated / 1e9 for each in found] == pytest.approx(gigabytes, abs=digits)


def test_numbers_worked_by_hand():
    tiny = Llama(width=4, inner=6, layers=1, vocabulary=2000)  # 16012 dense, 4 x 16 and 3 x 24 inside
    full = memory_report(tiny, "full", r=2, dtype="float32")
    assert (full.parameters, full.weights, full.gradients, full.optimizer) == (16148, 64592, 64592, 129184)
    sparse = memory_report(tiny, "sltrain", r=2, delta=0.5, index_dtype="int32", optimizer="adam8bit", per_layer=True)
    assert sparse.sparse == 4 * 8 + 3 * 12 and sparse.indices == 4 * 68
    assert sparse.parameters == 16012 + 2 * (4 * 8 + 3 * 10) + 68 and sparse.gradients == 2 * 8000
    assert sparse.optimizer == 2 * (2 * (8000 + 4 * 32) + 4 * (12 + 124 + 68))


BAD = [{"method": "galore"}, {"dtype": "int8"}, {"optimizer": "sgd"}, {"r": 0}, {"delta": 0.0}]


@pytest.mark.parametrize("change", BAD)
def test_bad_settings_are_refused(change):
    with pytest.raises(ValueError, match="memory_report"):
        memory_report(LLAMAS["60M"], **change)
