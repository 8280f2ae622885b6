"""Mask formulas against NumPy, and refusal of everything outside the vocabulary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.masks.formula import mask_from_formula, parse_formula

Q, K = np.arange(20)[:, None], np.arange(20)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("q >= k", Q >= K),
        ("q_idx >= kv_idx and q_idx - kv_idx < 5", (Q >= K) & (Q - K < 5)),
        ("q >= k and q - k < 5 or k < 2", ((Q >= K) & (Q - K < 5)) | (K + 0 * Q < 2)),
        ("0 <= q - k < 4", (Q - K >= 0) & (Q - K < 4)),
        ("not (q // 4 == k // 4)", Q // 4 != K // 4),
        ("(q % 3 == k % 3) & ~(abs(q - k) > 6) | (max(q, k) == t - 1)",
         ((Q % 3 == K % 3) & ~(abs(Q - K) > 6)) | (np.maximum(Q, K) == 19)),
        ("k >= -1 * h", (K >= -2) & (Q >= 0)),
    ],
)  # fmt: skip
def test_formula_is_the_mask_it_says(text, wanted):
    np.testing.assert_array_equal(mask_from_formula(text, 20, head=2), np.broadcast_to(wanted, (20, 20)))


NUMBERS = st.recursive(
    st.sampled_from(("q", "k", "q_idx", "kv_idx", "h", "t", "0", "1", "2", "7")),
    lambda part: st.one_of(
        st.builds("({} {} {})".format, part, st.sampled_from("+-*"), part),
        st.builds("{} {} {}".format, part, st.sampled_from("+-*"), part),  # the order of operations decides
        st.builds("({}) {} {}".format, part, st.sampled_from(("//", "%")), st.sampled_from(("2", "5", "-3"))),
        st.builds("{}({}, {})".format, st.sampled_from(("min", "max")), part, part),
        st.builds("{}({})".format, st.sampled_from(("abs", "-")), part),
    ),
    max_leaves=4,
)
SIGNS = st.sampled_from(("<", "<=", ">", ">=", "==", "!="))
CONDITIONS = st.recursive(
    st.builds("{} {} {}".format, NUMBERS, SIGNS, NUMBERS)
    | st.builds("{} {} {} {} {}".format, NUMBERS, SIGNS, NUMBERS, SIGNS, NUMBERS),
    lambda part: st.one_of(
        st.builds("{} {} {}".format, part, st.sampled_from(("and", "or")), part),
        st.builds("({}) {} ({})".format, part, st.sampled_from("&|"), part),
        st.builds("{}({})".format, st.sampled_from(("not ", "~")), part),
    ),
    max_leaves=4,
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(CONDITIONS.filter(lambda text: len(text) <= 120), st.integers(0, 2))
def test_any_formula_means_what_python_makes_of_it(text, head):
    code = compile(text.replace("~", "not "), "formula", "eval")
    wanted = [
        [eval(code, {"q": q, "k": k, "q_idx": q, "kv_idx": k, "h": head, "t": 4}) for k in range(4)] for q in range(4)
    ]
    assert mask_from_formula(text, 4, head=head).tolist() == wanted


def test_rows_on_their_own():
    rows = np.array([3, 17])
    np.testing.assert_array_equal(
        mask_from_formula("q - k < 4", 20, rows=rows), mask_from_formula("q - k < 4", 20)[rows]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os').system('true')", "vocabulary"),
        ("q.real >= k", "vocabulary"),
        ("q ** k > 1", "vocabulary"),
        ("[q for q in k]", "vocabulary"),
        ("(lambda: q)() > k", "vocabulary"),
        ("x > k", "vocabulary"),
        ("q >= 1.5", "vocabulary"),
        ("q - k", "a number, not a condition"),
        ("q and k", "must be a condition"),
        ("(q > k) + 1 > 0", "must be a number"),
        ("q >=", "not a formula"),
        ("", "not a formula"),
        ("q > k" + " or q > k" * 60, "at most 300"),
        ("min(q) > 1", "vocabulary"),
        ("99999999999 > q", "vocabulary"),
    ],
)
def test_everything_else_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_formula(text)


def test_limits_are_where_they_are_said_to_be():
    assert parse_formula("q > k".ljust(300))(2, 1)
    with pytest.raises(ValueError, match="at most 300 characters, got 301"):
        parse_formula("q > k".ljust(301))
    assert parse_formula(f"q < {2**31 - 1}")(0, 0) and parse_formula(f"q > -{2**31 - 1}")(0, 0)
    with pytest.raises(ValueError, match="vocabulary"):
        parse_formula(f"q < {2**31}")
    assert parse_formula("-" * 157 + "q < k")(1, 0)  # two names, their reading, one comparison: 6 parts, and 2 a sign
    with pytest.raises(ValueError, match="too many parts"):
        parse_formula("-" * 158 + "q < k")


def test_division_by_zero_is_an_error_not_a_crash():
    with pytest.raises(ValueError, match="divides by zero"):
        mask_from_formula("q // (k - k) > 1", 8)
