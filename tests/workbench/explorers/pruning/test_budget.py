"""Budgets are met exactly: hand values, the next level exceeds, and what is counted is what methods store."""

from dataclasses import replace
from fractions import Fraction

import pytest

from workbench.explorers.pruning import frontier
from workbench.explorers.pruning.budget import GROUPS, _largest, levels_within, solve_budget, stored_ratio
from workbench.explorers.pruning.method import method, methods
from workbench.models.sparse_inference.statistics import linear_layers

SQUARE = (384, 384)
COUNTED = [key for key, by in methods().items() if by.count]
MINILM = [(384, 384)] * 4 + [(1536, 384), (384, 1536)]


def bits(key, level, value_bits=16, shape=SQUARE):
    return method(key).count(shape, level, value_bits)


@pytest.mark.parametrize("key", COUNTED)
def test_what_is_counted_is_what_the_method_stores(key, small):
    by = methods()[key]
    more = {"n:m": ("3:8", "5:16"), "share": ("0.4321", "0"), "levels": ()}[by.ladder]
    for level in (*by.levels, *more):
        made = frontier.compress_layers(small, by, level)
        for name, layer in linear_layers(small.load()).items():
            assert by.count(tuple(layer.weight.shape), level, 16) == made[name].bits, (name, level)


def test_every_method_that_needs_no_training_can_count():
    assert set(COUNTED) == {key for key, by in methods().items() if by.one_shot} and len(COUNTED) >= 9


def test_hand_values_of_a_square_matrix():
    places = 384 * 384
    assert sum(bits("nm_magnitude", "2:4").values()) == 1_327_104
    assert bits("magnitude", "0.5") == {"values": places * 8, "indices": places}  # a bitmap; together 1,327,104
    assert bits("magnitude", "0.95")["indices"] == 7_373 * 16 + 32 * 385  # indices of 16 bits take less than a bitmap
    assert bits("blocks_16", "0.441") == {"values": 322 * 256 * 16, "indices": 576}
    assert bits("blocks_16", "0.98") == {"values": 12 * 256 * 16, "indices": 576}
    assert bits("magnitude", "0.5", 4) == {"values": places * 2, "indices": places}


def test_hand_values_of_factors():
    assert bits("svd", "0.4375") == bits("asvd", "0.4375") == {"dense factors": 1_327_104}  # rank 108
    assert bits("cospadi", "0.5") == {"dense factors": 16 * 384 * 128, "values": 16 * 384 * 64, "indices": 384 * 128}
    assert bits("svd", "0.9999") == {"dense factors": 16 * 768}  # never less than rank one
    assert bits("cospadi", "0.9999") == {"dense factors": 16 * 384, "values": 16 * 384, "indices": 0}
    half = {"dense factors": 16 * 12 * 48 * 32, "values": 16 * 384 * 12 * 12, "indices": 12 * 384 * 48}
    assert bits("dsformer", "0.5") == half  # 12 blocks of 48 atoms, 12 of them for a row; 384 x 32 / 2 = 6,144 values
    assert bits("dsformer", "0.9999") == {"dense factors": 16 * 12 * 32, "values": 16 * 12 * 384, "indices": 0}


def test_levels_at_nine_sixteenths_of_a_square_matrix():
    for key in ("magnitude", "snip", "wanda", "sparsegpt"):
        assert solve_budget(key, SQUARE, 0.5625) == "0.5"
    for key in ("nm_magnitude", "nm_wanda", "nm_sparsegpt"):
        assert solve_budget(key, SQUARE, 0.5625) == "2:4"
        assert solve_budget(key, SQUARE, 0.5) == "6:16"  # 6 values of 16 + 4 bits in 256; 3:8 and 1:4 have less
    level = solve_budget("blocks_16", SQUARE, 0.5625)  # 323 blocks with a bitmap; 324 are 9/16 without any index
    assert bits("blocks_16", level)["values"] == 323 * 256 * 16
    for key in ("svd", "asvd"):
        assert sum(bits(key, solve_budget(key, SQUARE, 0.5625)).values()) == 1_327_104  # rank 108
    level = solve_budget("cospadi", SQUARE, 0.5625)  # 138 atoms, 69 for each output, and a bit for each of both
    assert sum(bits("cospadi", level).values()) == 16 * (384 * 138 + 69 * 384) + 384 * 138
    assert solve_budget("blocks_16", SQUARE, 0.56) == "0.441"  # 322 blocks; 322 x 4,096 + 576 bits


@pytest.mark.parametrize("key", COUNTED)
@pytest.mark.parametrize(("target", "value_bits"), [(0.5625, 16), (0.45, 16), (0.35, 32), (0.25, 16), (0.8, 4)])
def test_no_level_is_above_the_budget_and_the_next_one_is(key, target, value_bits):
    by, most = method(key), Fraction(str(target))
    for shapes in ([SQUARE], MINILM):
        if by.ladder == "levels" and min(stored_ratio(by, shapes, level, value_bits) for level in by.levels) > most:
            with pytest.raises(ValueError, match="its smallest is"):
                solve_budget(key, shapes, target, value_bits)
            continue
        level = solve_budget(key, shapes, target, value_bits)
        found = stored_ratio(by, shapes, level, value_bits)
        assert found <= most
        if by.ladder != "share":
            ladder = [f"{n}:{m}" for m in GROUPS for n in range(1, m + 1)] if by.ladder == "n:m" else by.levels
            others = [stored_ratio(by, shapes, level, value_bits) for level in ladder]
            assert not [other for other in others if found < other <= most]
        else:
            more = [float(level) - step for step in (1e-12, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 4e-2)]
            ratios = [stored_ratio(by, shapes, f"{share:.13f}", value_bits) for share in more]
            assert all(other == found or other > most for other in ratios) and ratios[-1] > most


def test_budgets_that_cannot_be_met_are_left_out_and_equal_levels_are_given_once():
    assert levels_within("quant", [SQUARE], (0.5625, 0.55, 0.45, 0.2)) == ["8", "6", "2"]  # (8 + 32 / 64) / 16 = 0.53
    assert levels_within("armor", [SQUARE], (0.5625, 0.45)) == []
    assert levels_within("nm_wanda", [SQUARE], (0.5625, 0.45, 0.01)) == ["2:4", "3:8"]


def test_the_shortest_name_of_a_level_is_given():
    assert solve_budget("magnitude", (10, 10), 0.3625) == "0.7"  # 30 of 100 weights and a bit for each place
    assert solve_budget("wanda", (2, 3), 1.0) == "0.2"  # one of three goes from each row: shares from 1/6 on do so
    assert float(solve_budget("magnitude", MINILM, 0.45)) == pytest.approx(0.6125, abs=1e-6)


def test_without_indices_the_values_alone_must_fit():
    assert solve_budget("magnitude", SQUARE, 0.5, with_indices=False) == "0.5"
    assert solve_budget("nm_wanda", SQUARE, 0.5, with_indices=False) == "2:4"
    assert float(solve_budget("magnitude", SQUARE, 0.5)) == pytest.approx(0.5625, abs=1e-5)


@pytest.mark.parametrize(
    ("key", "shape", "target", "told"),
    [
        ("nm_wanda", SQUARE, 0.07, r"target_ratio=0.07 is less than nm_wanda can reach; its smallest is 0.078125"),
        ("magnitude", SQUARE, 0.001, r"its smallest is 0.00522"),  # the row pointers of no weight at all
        ("blocks_16", SQUARE, 1e-5, r"its smallest is 0.000244141"),  # a bit for each block
        ("nm_wanda", (8, 6), 0.5, "columns that are multiples of 4, got 6"),
        ("blocks_16", (24, 16), 0.5, "multiples of the block 16 x 16"),
        ("wanda", SQUARE, 0.0, "target_ratio"),
        ("wanda", SQUARE, 1.5, "target_ratio"),
        ("wanda", (384,), 0.5, "shape"),
        ("wanda", (0, 4), 0.5, "shape"),
    ],
)
def test_what_cannot_be_met_is_told_with_what_can(key, shape, target, told):
    with pytest.raises(ValueError, match=told):
        solve_budget(key, shape, target)


def test_a_method_of_few_levels_gives_the_largest_that_fits():
    few = replace(method("wanda"), ladder="levels", levels=("0.9", "0.5", "0.7"))
    ratios = {level: stored_ratio(few, [SQUARE], level) for level in few.levels}
    found = [_largest(ratios, Fraction(most)) for most in ("1", "0.4", "0.01")]
    assert found == [(level, ratios["0.9"]) for level in ("0.5", "0.7", None)]


def test_a_method_that_cannot_count_says_so():
    silent = replace(method("wanda"), count=None)
    with pytest.raises(ValueError, match="wanda: what it stores is not known before it prunes"):
        stored_ratio(silent, [SQUARE], "0.5")


def test_unknown_methods_and_wrong_types_are_refused():
    with pytest.raises(KeyError, match="did you mean 'wanda'"):
        solve_budget("wandaa", SQUARE, 0.5)
    with pytest.raises(TypeError, match="value_bits"):
        solve_budget("wanda", SQUARE, 0.5, 2.5)
    with pytest.raises(ValueError, match="value_bits"):
        solve_budget("wanda", SQUARE, 0.5, 0)
