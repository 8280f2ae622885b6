"""Comparison of numbers: what is equal on paper is equal whatever its last digits say; and the slope of logs."""

import math

import numpy as np
import pytest

from workbench.judging import (
    above,
    at_least,
    at_most,
    below,
    clearly_above,
    difference,
    falling,
    fitted,
    growth_exponent,
    of_seeds,
    rising,
    undecided,
    verdict,
)

EQUAL = [
    (2.0, 2.0),
    (2.0000000000000013, 2.0),
    (0.1 + 0.2, 0.3),
    (0.3, 0.3 * (1 + 9e-7)),
    (-5.0, -5.0 * (1 + 1e-12)),
    (0.0, 0.7 - 0.4 - 0.3),
    (1e-9, 1e-9 * (1 - 1e-12)),
    (math.inf, math.inf),
    (np.float32(0.1), 0.1),
]
APART = [(2.00001, 2.0), (0.0, -1e-13), (1e-9, 9.99e-10), (-1.0, -1.1), (math.inf, 1e300), (1, 0), (3, -math.inf)]


@pytest.mark.parametrize(("a", "b"), [*EQUAL, *((b, a) for a, b in EQUAL)])
def test_equal_numbers_are_never_above_and_always_at_least(a, b):
    assert not above(a, b) and not below(a, b)
    assert at_least(a, b) and at_most(a, b)


@pytest.mark.parametrize(("high", "low"), APART)
def test_other_numbers_keep_their_order(high, low):
    assert above(high, low) and at_least(high, low) and not below(high, low) and not at_most(high, low)
    assert below(low, high) and at_most(low, high) and not above(low, high) and not at_least(low, high)


@pytest.mark.parametrize("compare", [above, below, at_least, at_most])
def test_nothing_holds_of_nan(compare):
    assert not compare(math.nan, 1.0) and not compare(1.0, math.nan) and not compare(math.nan, math.nan)


def test_equal_neighbours_neither_rise_nor_fall():
    assert rising([0.1, 0.2, 0.3]) and not rising([0.1, 0.3, 0.1 + 0.2]) and not rising([0.1, 0.3, 0.2])
    assert falling([0.3, 0.2, 0.1]) and not falling([0.1 + 0.2, 0.3, 0.1]) and not falling([0.3, 0.1, 0.2])
    assert rising([1.0]) and falling([])


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 1.05, 1.2, 1.3, 1.7, 2, 2.0, 3, -1])
@pytest.mark.parametrize("scale", [1, 3.7, 1e-6])
def test_an_exact_power_has_exactly_its_exponent(exponent, scale):
    sizes = (512, 1024, 1536, 4096)
    assert growth_exponent(sizes, [scale * size**exponent for size in sizes]) == exponent
    assert growth_exponent(sizes[1:3], [scale * size**exponent for size in sizes[1:3]]) == exponent


def test_the_slope_is_that_of_least_squares_in_any_order():
    assert growth_exponent((1, 2, 4), (1, 2, 8)) == 1.5  # logs to base 2: 0 1 2 and 0 1 3
    assert growth_exponent((4, 1, 2), (8, 1, 2)) == 1.5
    assert growth_exponent({1: 0, 2: 0, 4: 0}.keys(), np.array([1.0, 2, 8])) == 1.5


@pytest.mark.parametrize(
    ("sizes", "values", "error", "words"),
    [
        ((), (), LookupError, "two different sizes"),
        ((8,), (1,), LookupError, "two different sizes"),
        ((8, 8), (1, 2), LookupError, "two different sizes"),
        ((8, 16), (1, 0), ValueError, "positive"),
        ((-8, 16), (1, 2), ValueError, "positive"),
        ((8, 16), (1, math.nan), ValueError, "positive"),
        ((8, 16), (1, math.inf), ValueError, "finite"),
        ((8, 16), (1, 2, 3), ValueError, "one value per size"),
    ],
)
def test_a_slope_needs_two_sizes_and_positive_numbers(sizes, values, error, words):
    with pytest.raises(error, match=words):
        growth_exponent(sizes, values)


def test_verdicts_are_words():
    assert [verdict(True, True), verdict(True), verdict(False, True), verdict(False)] == [
        "reproduced", "reproduced", "partly", "not reproduced",
    ]  # fmt: skip


def test_pairs_leave_what_they_share_out_of_the_error():
    lead = difference([1.2, 2.2, 3.5], [1.0, 2.0, 3.0])  # 0.2, 0.2, 0.5: mean 0.3, standard error 0.1
    assert lead.mean == pytest.approx(0.3) and lead.error == pytest.approx(0.1)
    assert lead.said(2) == "+0.30 ± 0.10" and lead.said(0, scale=100) == "+30 ± 10"


def test_one_value_is_a_constant_and_unequal_sides_add_their_errors_as_squares():
    assert difference([1.0, 2.0, 3.0], [1.5]).error == pytest.approx(1 / math.sqrt(3))
    assert difference([1.5], [1.0, 2.0, 3.0]).mean == pytest.approx(-0.5)
    both = difference([1.0, 2.0, 3.0], [4.0, 6.0])  # squares of the errors: 1/3 and 1
    assert both.error == pytest.approx(math.sqrt(4 / 3)) and both.mean == pytest.approx(-3)


def test_what_was_drawn_once_has_no_error():
    lead = difference([0.7], [0.5])
    assert lead.error is None and lead.said(1) == "+0.2 (one seed)" and lead.said(1, once="one text").endswith("text)")
    assert clearly_above(lead) and not clearly_above(difference([0.5], [0.7]))
    with pytest.raises(LookupError, match="0 and 1"):
        difference([], [0.5])


def test_a_lead_is_clear_beyond_twice_its_error():
    noise = [-0.2, 0.0, 0.2]  # standard error 0.2 / sqrt(3) = 0.1155, twice that 0.2309
    assert clearly_above(difference([x + 0.24 for x in noise], [0.0] * 3))
    assert not clearly_above(difference([x + 0.22 for x in noise], [0.0] * 3))
    assert not clearly_above(difference([x + 0.4 / math.sqrt(3) for x in noise], [0.0]))  # at the bound
    assert not clearly_above(difference([0.5] * 3, [0.5 * (1 - 1e-12)] * 3))  # no error, and equal
    assert not clearly_above(difference([math.nan, 1.0], [0.0, 0.0]))


def test_a_word_that_needs_a_reason_has_one():
    assert fitted("5", calibrated="the size", on="this") == ("5", "fitted", "the size calibrated on this")
    found = undecided("5", baseline="attention", figure="0.33, chance 0.33")
    assert found == ("5", "undecided", "attention has not learned: 0.33, chance 0.33")
    with pytest.raises(ValueError, match="fitted: calibrated must say in words why the claim is fitted, got ''"):
        fitted("5", calibrated="", on="this")
    with pytest.raises(ValueError, match="undecided: figure must say in words why the claim is undecided, got ' '"):
        undecided("5", baseline="attention", figure=" ")


def test_a_mean_says_over_how_many_seeds():
    assert of_seeds([0.5]) == "one seed" and of_seeds([0.5, 0.6, 0.7]) == "mean of 3 seeds"
