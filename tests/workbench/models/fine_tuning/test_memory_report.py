"""Bytes by formula against those that are held, for one layer and each method."""

import pytest
import torch
from torch import nn

from workbench.models.fine_tuning.adapt import adapt
from workbench.models.fine_tuning.memory import training_memory
from workbench.models.fine_tuning.memory_report import memory_report


@pytest.mark.parametrize(("method", "knobs"), [
    ("full", {}), ("lora", {"r": 3}), ("sara", {"fraction": 0.2}), ("sara", {"fraction": 0.9}),
])  # fmt: skip
def test_what_is_held_is_what_the_formula_says(method, knobs):
    m, n, t = 24, 16, 10
    torch.manual_seed(0)
    tuning = adapt(nn.Sequential(nn.Linear(n, m, bias=False)), method, **knobs)
    x, k = torch.randn(t, n), tuning.trainable
    optimizer = torch.optim.AdamW(tuning.parameters(), lr=1e-3)
    found = training_memory(tuning.model, lambda: tuning.model(x).sum(), optimizer)
    want = memory_report(m, n, k if method == "sara" else 0, method=method, rank=3, tokens=t)
    assert {name: getattr(found, name) for name in want if name != "transient"} == {
        name: size for name, size in want.items() if name != "transient"
    }
    assert found.transient >= want["transient"] + want["gradients"]


def test_the_table_by_hand():
    assert memory_report(4, 6, 5, itemsize=2, tokens=3) == {
        "weights": 2 * (24 + 5), "gradients": 10, "optimizer": 20, "indices": 20, "saved": 36, "transient": 48,
    }  # fmt: skip
    assert memory_report(4, 6, 5, method="selective")["indices"] == 24
    assert memory_report(4, 6, 5, method="selective")["optimizer"] == 8 * 24
    lora = memory_report(4, 6, 5, method="lora", rank=2, tokens=3)
    assert (lora["weights"], lora["optimizer"], lora["saved"]) == (4 * (24 + 20), 8 * 20, 4 * 3 * 8)


def test_places_and_masks_cross_at_a_quarter_and_an_eighth():
    m = n = 16

    def held(k, storage):
        return memory_report(m, n, k, storage=storage)["indices"]

    assert held(63, "int32") < held(63, "mask") == held(64, "int32") < held(65, "int32")
    assert held(31, "int64") < held(31, "mask") == held(32, "int64")


@pytest.mark.parametrize("change", [{"k": 25}, {"m": 0}, {"method": "prefix"}, {"storage": "bits"}, {"tokens": -1}])
def test_bad_input_is_refused(change):
    with pytest.raises(ValueError, match=f"memory_report: {next(iter(change))}"):
        memory_report(**({"m": 4, "n": 6, "k": 5} | change))
