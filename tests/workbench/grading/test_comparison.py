"""Comparisons judge values, whatever types hold them, and say what is off, how far and which way."""

import array
import collections
import decimal
import fractions
import math

import numpy as np
import pytest
import scipy.sparse as sp
import sympy
import torch

from workbench.grading.comparison import compare, compare_calls

F = fractions.Fraction


class FloatLike:
    def __float__(self):
        return 0.25


class Series:
    """As pandas keeps its values: a shape, and an array on request."""

    shape = (3,)

    def __array__(self, dtype=None, copy=None):
        return np.array([1, 2, 3], dtype)


QUARTERS = [
    *(
        0.25,
        np.float64(0.25),
        np.float32(0.25),
        np.float16(0.25),
        np.longdouble(0.25),
        np.array(0.25),
        np.array([0.25]),
    ),
    *(torch.tensor(0.25, dtype=d) for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16)),
    *(torch.tensor([[0.25]]), torch.tensor(0.25, requires_grad=True), torch.tensor(0.25 + 0j)),
    *(F(1, 4), decimal.Decimal("0.25"), sympy.Rational(1, 4), sympy.Float("0.25"), FloatLike(), 0.25 + 0j),
    *(np.complex64(0.25), [0.25], (0.25,), [[0.25]], "0.25", " 1/4 ", "2.5e-1", ".25", "1 / 4", "2**-2", "[0.25]"),
    *("np.float64(0.25)", "tensor(0.2500)", "0.2500"),
]
SEVENS = [
    *(7, 7.0, np.int8(7), np.uint64(7), np.float32(7), np.array(7), np.array([[7]]), torch.tensor(7)),
    *(torch.tensor(7, dtype=d) for d in (torch.uint8, torch.int16, torch.float16, torch.bfloat16)),
    *(F(14, 2), decimal.Decimal(7), decimal.Decimal("7.00"), sympy.Integer(7), 7 + 0j, [7], "7", "7.0", "14/2"),
    *(0.7 * 10, 7.000000000000001),
]
LISTS = [
    *([1, 2, 3], (1, 2, 3), range(1, 4), np.array([1, 2, 3]), np.array([1.0, 2, 3]), torch.tensor([1, 2, 3])),
    *(array.array("i", [1, 2, 3]), collections.deque([1, 2, 3]), {1, 2, 3}, frozenset({3, 1, 2}), Series()),
    *({1: 0, 2: 0, 3: 0}.keys(), {0: 1, 1: 2, 2: 3}.values(), [F(1), decimal.Decimal(2), "3"], "1, 2, 3", "1 2 3"),
    *("[1 2 3]", "(1, 2, 3)", "{1, 2, 3}", "1\n2\n3", "array([1, 2, 3])", [np.array(1), torch.tensor(2), 3]),
    *(torch.tensor([1.0, 2.0, 3.0], requires_grad=True), torch.arange(1, 4).to(torch.bfloat16)),
]
SQUARE = np.array([[0.0, 2.0], [3.0, 0.0]])
MATRICES = [
    *(SQUARE, SQUARE.tolist(), sp.csr_array(SQUARE), sp.coo_matrix(SQUARE), sp.dia_array(SQUARE), sp.lil_array(SQUARE)),
    *(
        torch.tensor(SQUARE),
        torch.tensor(SQUARE).to_sparse(),
        torch.tensor(SQUARE).to_sparse_csr(),
        np.asmatrix(SQUARE),
    ),
    *("0 2\n3 0", "[[0, 2], [3, 0]]", "0, 2; 3, 0", "[[0. 2.]\n [3. 0.]]", [np.array([0, 2]), range(3, -3, -3)]),
    sympy.Matrix([[0, 2], [3, 0]]),
]
YES = [
    *(True, np.True_, 1, 1.0, np.int8(1), np.array(True), torch.tensor(True), torch.tensor([1]), "yes", "Y", "true"),
    *(" True ", "1", sympy.true, [True], "'yes'", F(1)),
]


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        (QUARTERS, 0.25),
        (QUARTERS, np.float64(0.25)),
        (SEVENS, 7),
        (SEVENS, np.int64(7)),
        (LISTS, np.array([1, 2, 3])),
        (LISTS, [1, 2, 3]),
        (LISTS, (1, 2, 3)),
        (LISTS, np.array([1.0, 2.0, 3.0])),
        (MATRICES, SQUARE),
        (MATRICES, sp.csr_array(SQUARE)),
        (YES, True),
        (["no", "FALSE", 0, np.False_, torch.tensor(0), sympy.false, "n"], False),
        ([" Row-wise ", "'row-wise'", np.str_("row-wise"), ["row-wise"], np.array("row-wise")], "row-wise"),
        ([[3, "b"], (3, "B"), ("3", "b"), "3, b"], (3, "b")),
        ([("high", "low"), ["HIGH", "low"], "high, low", "high low", np.array(["high", "low"])], ("high", "low")),
        ([(True, False), [1, 0], "yes, no", "1 0", np.array([True, False]), torch.tensor([1, 0])], (True, False)),
        ([{"a": 1, "b": 2.0}, {"a": np.array(1)}, {"a": "1"}], {"a": 1}),
        ([math.nan, np.float32("nan"), torch.tensor(math.nan)], math.nan),
        ([math.inf, "1e999"], math.inf),
        ([np.zeros((0, 3)), []], np.zeros((0, 3))),
        ([[1.0, math.nan]], np.array([1.0, math.nan])),
        ([2**60 + 1, F(2**60 + 1)], 2**60 + 1),
        ([1 + 2j, "1 + 2j", np.complex64(1 + 2j)][::2], 1 + 2j),
    ],
)
def test_an_equal_answer_is_right_whatever_its_type(answers, right):
    for answer in answers:
        result = compare(answer, right)
        assert result.equal, (answer, type(answer), result.sentence)


MASK = np.array([[True, False, True], [False, False, True]])


@pytest.mark.parametrize(
    "answer",
    [
        *(MASK, MASK.astype(int), MASK.tolist(), torch.tensor(MASK), sp.csr_array(MASK), "1 0 1\n0 0 1", "1,0,1;0,0,1"),
        *({(0, 0), (0, 2), (1, 2)}, [(1, 2), (0, 0), (0, 2)], np.argwhere(MASK), "(0, 0), (0, 2), (1, 2)"),
        *("0 0\n0 2\n1 2", [["yes", "no", "yes"], ["no", "no", "yes"]]),
    ],
)
def test_a_mask_may_be_given_by_its_values_or_by_the_positions_that_are_true(answer):
    assert compare(answer, MASK).equal


@pytest.mark.parametrize("right", [1.0, 0.123456789, 9.99951, 12345.678, 3.14159e-9, 0.99996, 2.0005e7, 1 / 3, 6.02e23])
@pytest.mark.parametrize("sign", [1, -1])
def test_four_significant_digits_are_enough_and_the_third_counts(right, sign):
    right *= sign
    rounded = float(f"{right:.4g}")
    unit = 10.0 ** (math.floor(math.log10(abs(right))) - 3)
    cut_off = sign * math.floor(abs(right) / unit + 1e-9) * unit
    for good in (rounded, cut_off, str(rounded), np.float32(right), np.array([rounded])):
        assert compare(good, right).equal, good
        assert compare([good, good], [right, right]).equal, good
    for wrong in (rounded + 10 * unit, rounded - 10 * unit, 1.011 * right, 0.989 * right):
        assert not compare(wrong, right).equal, wrong
        assert not compare([right, wrong], np.array([right, right])).equal, wrong
        assert not compare([right, wrong], [right, right]).equal, wrong


def test_whole_numbers_are_exact():
    for wrong in (12_346, 12_345.01, 12_350, F(12_345 * 3 + 1, 3), "12346", 2**60):
        assert not compare(wrong, 12_345).equal
    assert not compare(float(2**60), 2**60 + 1).equal
    assert not compare([1, 2, 3.001], np.array([1, 2, 3])).equal


def test_what_rounding_leaves_of_zero_is_zero():
    assert compare([0.5, 1e-11, 0.5], np.array([0.5, 0.0, 0.5])).equal
    assert not compare([0.5, 1e-5, 0.5], np.array([0.5, 0.0, 0.5])).equal
    assert compare(0.0, 0.0).equal and not compare(1e-3, 0.0).equal


@pytest.mark.parametrize(
    ("answer", "right", "says"),
    [
        (8, 7, "too large, by about 1e+01 per cent"),
        (70, 7, "too large, by a factor of about 1e+01"),
        (3, 7, "too small, by a factor of about 2"),
        (2**60, 2**60 + 1, "compared exactly"),
        (-7.0, 7.0, "too small and of the wrong sign"),
        (1, 0, "too large"),
        (float("nan"), 1.0, "not a number"),
        (decimal.Decimal("NaN"), 7, "not a number"),
        (float("inf"), 1.0, "not the right value"),
        (10**400, 1.0, "not the right value"),
        (decimal.Decimal("1e999999999"), 1.0, "not the right value"),
        (1 + 1j, 1.0, "not the right value"),
        (torch.tensor(1 / 3, dtype=torch.bfloat16), 1 / 3, "Its type holds two or three digits only"),
        (25, 0.25, "It is in per cent; answer with the share, a number from 0 to 1."),
        ("25 %", 0.25, "This is in per cent; answer with the number itself."),
        ("0,25", 0.25, "a comma separates values"),
        ("1,234", 1234, "a comma separates values"),
        ("six", 7, "Wanted one number, got the text 'six'"),
        (True, 1, "Wanted one number, got True"),
        (torch.tensor(True), 1, "Wanted one number, got True"),
        (False, True, "You said False"),
        (2, True, "Wanted yes or no (True or False)"),
        ("perhaps", True, "Wanted yes or no"),
        ([7, 8], 7, "Wanted one number, got a list of 2 values"),
        (3, "row-wise", "Wanted a word"),
        ("outer", "row-wise", "'outer'"),
        (np.zeros(3), np.zeros(4), "Wanted shape (4,), got (3,)"),
        (np.zeros((4, 1)), np.zeros(4), "Wanted one number, got a list of 1 value"),
        (np.zeros(4), np.zeros((2, 2)), "Wanted shape (2, 2), got (4,)"),
        ([[1], [1, 2]], np.zeros((2, 2)), "Wanted shape (2, 2), got (2, 1)"),
        ([[1, 2], [1]], np.zeros((2, 2)), "got rows of different lengths"),
        ([1, 2, 4], np.array([1, 2, 3]), "1 differ. The worst is [2]: your 4 is too large"),
        ({2, 3}, (3, 2), "a set, which has none"),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0]), "not a number"),
        (np.array(["a"]), np.zeros(1), "Wanted one number, got the text 'a'"),
        (np.ma.masked_equal([1, 2], 2), np.zeros(2), "masked"),
        (sp.csr_array((2, 3)), np.zeros((2, 2)), "Wanted shape (2, 2), got (2, 3)"),
        ((1, 2), (1, 3), "Value 2 of 2 differs"),
        ((1,), (1, 3), "Wanted 2 values, got 1"),
        ((n for n in range(3)), (0, 1, 2), "got a value of type generator; make a list of it"),
        (range(10**12), (0, 1, 2), "far too many"),
        (np.broadcast_to(0, (10**5, 10**5)), (0, 1, 2), "Wanted fewer values"),
        ({"a": 1}, (1,), "got a dict of 1 value"),
        ({"a": 1}, {"a": 1, "b": 2}, "lacks 'b'"),
        ({"a": 2}, {"a": 1}, "The value of 'a' differs"),
        (None, np.zeros(2), "got None"),
        (len, 7, "got a function; answer with what it returns"),
        (float, 7, "got the type"),
        (b"7", 7, "a value of type bytes"),
        ([(0, 9)], MASK, "lie outside the shape (2, 3)"),
        (~MASK, MASK, "6 differ. The first is [0, 0]: you said False"),
        ("x" * 30_000, 7, "30,000 characters"),
        ("", 7, "The answer is empty"),
        ("__import__('os').getcwd()", 7, "could not be read"),
        ("1/0", 7, "divides by zero"),
        ("10**10**10", 7, "power is too large"),
    ],
)
def test_wrong_answers_are_explained(answer, right, says):
    result = compare(answer, right)
    assert not result.equal
    assert says in result.sentence, result.sentence


def test_the_right_value_is_not_given_away():
    for wrong in (1, 12_345, 123_456, float("nan"), "x"):
        assert "98765" not in compare(wrong, 98_765).sentence.replace(",", "")


def test_sparse_answers_compare_pattern_then_values():
    right = sp.csr_array(SQUARE)
    extra = sp.csr_array(np.array([[1.0, 2.0], [3.0, 0.0]]))
    assert "1 entries too many, for one (0, 0)" in compare(extra, right).sentence
    assert "1 entries missing, for one (0, 0)" in compare(right, extra).sentence
    assert "The pattern of 2 entries agrees" in compare(right * 2, right).sentence
    assert not compare(right * 2, right).equal
    stored_zero = sp.csr_array((np.array([0.0, 2.0, 3.0]), np.array([0, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    assert compare(stored_zero, right).equal and compare(right, stored_zero).equal


def test_functions_are_compared_call_by_call():
    cases = [(1,), (2,), (3,)]
    assert compare_calls(lambda x: x + x, lambda x: 2 * x, cases).equal
    assert compare_calls(lambda x: torch.tensor(2 * x), lambda x: 2 * x, cases).equal
    assert "Call 3 of 3 differs" in compare_calls(lambda x: min(2 * x, 4), lambda x: 2 * x, cases).sentence
    assert "ZeroDivisionError" in compare_calls(lambda x: 1 / 0, lambda x: x, cases).sentence
    assert "SystemExit" in compare_calls(lambda x: exit(), lambda x: x, cases).sentence
    assert "Wanted a function" in compare_calls(3, lambda x: x, cases).sentence


def test_a_function_that_changes_its_arguments_changes_a_copy():
    def doubled(x):
        x *= 2
        return x

    assert compare_calls(doubled, lambda x: 2 * x, [(np.arange(3.0),)]).equal
