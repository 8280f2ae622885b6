"""The table at equal bytes: never above the budget, and the best of those within it."""

import pytest

from widgets.figures.pruning import TradeoffPoint
from workbench.explorers.pruning import budget_table as module
from workbench.explorers.pruning.budget_table import BestPoint, budget_table, budget_tables
from workbench.explorers.pruning.recorded import points, recorded_rows, rows_of_point
from workbench.explorers.pruning.source import source


def made(key, quality, stored, stage="one-shot", **times):
    method, _, level = key.partition("@")
    return TradeoffPoint(key=key, method=method, level=level, stage=stage, quality={"cosine": quality},
                         cost={"stored": stored, **times})  # fmt: skip


POINTS = (
    made("dense", 1.0, 1000, time_1=2.0),
    made("a@0.5", 0.7, 563, time_1=1.0),  # above 0.5625
    made("a@0.6", 0.6, 450, time_1=0.5, time_512=9.0),
    made("a@0.7", 0.65, 350),  # fewer bytes, and better
    made("b@1", 0.9, 562),
    made("b@2", 0.8, 250),
    made("a@0.8", 0.99, 100, stage="recovered"),
)


@pytest.fixture
def rows(small, monkeypatch):
    monkeypatch.setattr(module, "source", lambda key: {"small": small}[key])
    return [row for point in POINTS for row in rows_of_point(point, small)]


def test_the_best_point_within_each_budget_is_taken(rows):
    found = budget_table("small", (0.5625, 0.45, 0.3, 0.2), rows=rows)
    assert [(p.budget, p.method, p.level, p.share, p.quality) for p in found] == [
        (0.5625, "b", "1", 0.562, 0.9),
        (0.5625, "a", "0.7", 0.35, 0.65),
        (0.45, "b", "2", 0.25, 0.8),
        (0.45, "a", "0.7", 0.35, 0.65),
        (0.3, "b", "2", 0.25, 0.8),
    ]
    assert budget_table("small", [0.45], rows=rows[:-1])[1].times_ms == {}
    worse = [row for row in rows if row["point"] != "a@0.7"]
    assert budget_table("small", [0.45], rows=worse)[1] == BestPoint(
        budget=0.45, method="a", level="0.6", share=0.45, quality=0.6, times_ms={1: 0.5, 512: 9.0})  # fmt: skip


def test_the_page_shows_every_budget_and_the_model_before(rows, monkeypatch):
    monkeypatch.setattr(module, "recorded_rows", lambda: rows)
    shown = budget_tables(("small",), (0.5625, 0.3)).value
    assert shown.count("<details") == 2 and shown.count(" open>") == 1 and shown.count("before pruning") == 2
    assert "A small model, at most 0.5625 of the bytes: 2 methods" in shown and "not taken" in shown
    assert shown.index(">b<") < shown.index(">a<") and "<td>0.5620</td>" in shown


def test_wrong_budgets_and_models_without_a_record_are_refused(rows):
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="budget_table: each budget"):
            budget_table("small", [wrong], rows=rows)
    with pytest.raises(LookupError, match="no record holds small"):
        budget_table("small", rows=[])
    with pytest.raises(KeyError):
        budget_table("another", rows=rows)


@pytest.mark.parametrize("key", ["minilm", "tiny_lm"])
def test_records_hold_twelve_methods_at_three_budgets(key):
    rows, of = recorded_rows(), source(key)
    found = budget_table(key, module.SHOWN, rows=rows)
    there = [point for point in points(rows, of) if point.stage == "one-shot"]
    whole = next(point for point in there if point.key == "dense").cost["stored"]
    good = 1 if of.qualities[0].better == "higher" else -1
    for budget in module.SHOWN:
        best = [each for each in found if each.budget == budget]
        assert len(best) >= 12 and len({each.method for each in best}) == len(best)
        for each in best:
            assert 0 < each.share <= budget
            rivals = [p for p in there if p.method == each.method and p.cost["stored"] <= budget * whole]
            assert good * each.quality == max(good * p.quality[of.qualities[0].key] for p in rivals)
