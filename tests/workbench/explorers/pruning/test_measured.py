"""Which points the experiments on trade-offs make: methods, levels, models, pieces."""

import pytest

from workbench import record
from workbench.explorers.pruning import measured
from workbench.explorers.pruning.budget import levels_within
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import method, methods
from workbench.paper import Report, made_now

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPES = [(64, 32), (32, 64)] * 2
SMALL = dict.fromkeys(measured.MODELS, ("small",))


@pytest.fixture
def asked(small, monkeypatch):
    """Return ``asked(keys, size, **how)`` -> labels of the pieces of a run, in their order; nothing is pruned."""
    monkeypatch.setattr(measured, "sources", lambda: {"small": small})

    def run(keys, size, **how):
        found = []
        rows = measured.judged_rows(keys, size, Report(), lambda labels, make: found.append(labels) or [labels],
                                    models=SMALL, **how)  # fmt: skip
        assert rows == found
        return [f"{each['method']}@{each['level']}" for each in found]

    return run


def test_every_method_is_taken_at_its_levels_and_at_the_budgets(asked):
    assert asked(("nm_wanda", "quant"), "full") == [
        *("nm_wanda@2:4", "nm_wanda@1:4", "nm_wanda@3:4", "nm_wanda@4:8", "nm_wanda@2:8"),
        *("nm_wanda@3:8", "nm_wanda@4:16", "nm_wanda@3:16"),  # 2:4 is the level at 0.5625
        *("quant@4", "quant@8", "quant@6", "quant@5", "quant@3", "quant@2"),
    ]
    many = asked(("magnitude",), "full")
    assert many[:8] == [*(f"magnitude@{level}" for level in SHARES), "magnitude@0.613"] and len(many) == 10
    assert asked(("armor",), "full") == ["armor@16", "armor@32", "armor@8"]  # no budget is met


def test_smaller_sizes_take_fewer(asked):
    assert asked(("wanda", "nm_wanda"), "small") == [
        *("wanda@0.5", "wanda@0.3", "nm_wanda@2:4", "nm_wanda@1:4")]  # fmt: skip
    assert asked(("wanda", "nm_wanda"), "tiny") == ["wanda@0.5"]


def test_levels_at_budgets_take_no_more_and_nearly_all(small):
    dense = sum(layer.weight.numel() for pair in small.load().layers for layer in (pair[0], pair[2]))
    for key in ("magnitude", "blocks_4x1", "svd", "cospadi", "dsformer"):
        for budget, level in zip(measured.BUDGETS, levels_within(key, SHAPES, measured.BUDGETS), strict=True):
            bits = sum(sum(method(key).count((m, n), level, 16).values()) for m, n in SHAPES)
            assert level in measured.levels_of(method(key), small)
            assert 0.9 * budget < bits / (16 * dense) <= budget, (key, budget)


def test_rows_hold_the_points_of_the_model(small, monkeypatch):
    monkeypatch.setattr(measured, "sources", lambda: {"small": small})
    told = []
    rows = measured.judged_rows(("magnitude",), "small", Report(lambda *say: told.append(say)), made_now, models=SMALL)
    assert list(dict.fromkeys(each["point"] for each in rows)) == ["magnitude@0.5", "magnitude@0.3"]
    (first, second) = (each["value"] for each in rows if each["quantity"] == "cosine of outputs")
    assert first < second and told and [f for f, _ in told] == sorted(f for f, _ in told)


def test_the_tiny_size_reads_less_and_keeps_the_axes(small):
    tiny = measured.shortened(small, "tiny")
    assert [len(batch) for batch in tiny.calibration()] == [len(batch) for batch in tiny.evaluation()] == [2]
    assert tiny.judge(small.load()) == {"cosine": 0.0} and len(tiny.training(3, 1)) == 3
    assert measured.shortened(small, "small") is small


@pytest.mark.parametrize("experiment", ["tradeoffs", "tradeoffs_embedded"])
def test_each_method_stands_in_the_records_of_one_paper(experiment):
    taken = [
        key
        for found in record.all_records((experiment,))
        for key in {row["point"].partition("@")[0] for row in found["rows"]} - {"dense"}
    ]
    one_shot = {key for key, by in methods().items() if by.one_shot}
    assert len(taken) == len(set(taken)) and one_shot - set(taken) <= {"armor", "nowag"}
