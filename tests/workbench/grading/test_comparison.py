"""Comparisons accept what is right within tolerance, and say what is off, how far and which way."""

import numpy as np
import pytest
import scipy.sparse as sp

from workbench.grading.comparison import compare, compare_calls


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (7, 7),
        (7.0, 7),
        (np.int64(7), 7),
        (1.0 + 1e-9, 1.0),
        (float("nan"), float("nan")),
        (float("inf"), float("inf")),
        (" Row-wise ", "row-wise"),
        (np.True_, True),
        (2**60 + 1, 2**60 + 1),
        ([1, 2, 3], np.array([1, 2, 3])),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan])),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        ([3, "b"], (3, "B")),
        ({"a": 1, "b": 2.0}, {"a": 1}),
    ],
)
def test_right_answers_pass(answer, right):
    assert compare(answer, right).equal


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
        (float("inf"), 1.0, "not the right value"),
        (True, 1, "Wanted one number, got a value of type bool"),
        ("7", 7, "Wanted one number, got a value of type str"),
        ([7], 7, "Wanted one number, got a value of type list"),
        (1, True, "Wanted True or False"),
        (False, True, "You said False"),
        (3, "row-wise", "Wanted a string"),
        ("outer", "row-wise", "'outer'"),
        (np.zeros(3), np.zeros(4), "Wanted shape (4,), got (3,)"),
        ([1, 2, 4], np.array([1, 2, 3]), "1 differ. The worst is [2]: your 4 is too large"),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0]), "not a number"),
        (np.array(["a"]), np.zeros(1), "Wanted numbers"),
        ([[1], [1, 2]], np.zeros((2, 2)), "Wanted an array of shape (2, 2)"),
        (sp.csr_array((2, 2)), np.zeros((2, 2)), "Wanted a dense array"),
        ((1, 2), (1, 3), "Value 2 of 2 differs"),
        ((1,), (1, 3), "Wanted 2 values, got 1"),
        ({"a": 1}, {"a": 1, "b": 2}, "lacks 'b'"),
        ({"a": 2}, {"a": 1}, "The value of 'a' differs"),
        (None, np.zeros(2), "got None"),
    ],
)
def test_wrong_answers_are_explained(answer, right, says):
    result = compare(answer, right)
    assert not result.equal
    assert says in result.sentence


def test_the_right_value_is_not_given_away():
    for wrong in (1, 12_345, 123_456, float("nan"), "x"):
        assert "98765" not in compare(wrong, 98_765).sentence.replace(",", "")


def test_sparse_answers_compare_pattern_then_values():
    right = sp.csr_array(np.array([[0.0, 2.0], [3.0, 0.0]]))
    assert compare(right.tocoo(), right).equal
    assert "dense" not in compare(right, right).sentence
    extra = sp.csr_array(np.array([[1.0, 2.0], [3.0, 0.0]]))
    assert "1 entries too many, for one (0, 0)" in compare(extra, right).sentence
    assert "1 entries missing, for one (0, 0)" in compare(right, extra).sentence
    assert "The pattern of 2 entries agrees" in compare(right * 2, right).sentence
    assert not compare(right * 2, right).equal
    assert not compare(right.toarray(), right).equal


def test_tolerances_count():
    assert compare(1.01, 1.0, rtol=0.02).equal
    assert not compare(1.03, 1.0, rtol=0.02).equal
    assert compare(1e-9, 0.0, atol=1e-8).equal


def test_functions_are_compared_call_by_call():
    cases = [(1,), (2,), (3,)]
    assert compare_calls(lambda x: x + x, lambda x: 2 * x, cases).equal
    assert "Call 3 of 3 differs" in compare_calls(lambda x: min(2 * x, 4), lambda x: 2 * x, cases).sentence
    assert "ZeroDivisionError" in compare_calls(lambda x: 1 / 0, lambda x: x, cases).sentence
    assert "Wanted a function" in compare_calls(3, lambda x: x, cases).sentence
