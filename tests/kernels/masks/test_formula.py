"""Mask formulas against Python and NumPy, exact at 64 bits, and refusal of everything outside the vocabulary."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.masks.formula import FormulaError, formula_pairs, mask_from_formula, parse_formula

Q, K = np.arange(20)[:, None], np.arange(20)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("q >= k", Q >= K),
        ("q_idx >= kv_idx and q_idx - kv_idx < 5", (Q >= K) & (Q - K < 5)),
        ("q >= k and q - k < 5 or k < 2", ((Q >= K) & (Q - K < 5)) | (K + 0 * Q < 2)),
        ("0 <= q - k < 4", (Q - K >= 0) & (Q - K < 4)),
        ("not (i // 4 == j // 4)", Q // 4 != K // 4),
        ("(q % 3 == k % 3) & ~(abs(q - k) > 6) | (max(q, k) == t - 1)",
         ((Q % 3 == K % 3) & ~(abs(Q - K) > 6)) | (np.maximum(Q, K) == 19)),
        ("k >= -1 * h", (K >= -2) & (Q >= 0)),
        ("k >= b", (K >= 5) & (Q >= 0)),
        ("q - k < window and (True or False)", Q - K < 7),
        ("max(q, k, 3) - min(q, k, 9) < 5", np.maximum(np.maximum(Q, K), 3) - np.minimum(np.minimum(Q, K), 9) < 5),
        ("(q > 3) ^ (k > 3)", (Q > 3) ^ (K > 3)),
        ("(q & 4) == (k & 4) and +q | 1 > -3", (Q & 4) == (K & 4)),
        ("lambda b, h, q_idx, kv_idx: (\n    (q_idx >= kv_idx)\n  & (q_idx - kv_idx <= window)\n)",
         (Q >= K) & (Q - K <= 7)),
        ("mask_mod = lambda b, head, query, key: query >= key + head", Q >= K + 2),
        ("True", np.ones((20, 20), bool)),
    ],
)  # fmt: skip
def test_formula_is_the_mask_it_says(text, wanted):
    found = mask_from_formula(text, 20, head=2, batch=5, constants={"window": 7})
    np.testing.assert_array_equal(found, np.broadcast_to(wanted, (20, 20)))


# Masks as they are written for FlexAttention: by position, by head, in one and in two dimensions.
MASK_MODS = {
    "causal": "lambda b, h, q_idx, kv_idx: q_idx >= kv_idx",
    "everything": "lambda b, h, q_idx, kv_idx: q_idx >= 0",
    "sliding window": "lambda b, h, q_idx, kv_idx: (q_idx >= kv_idx) & (q_idx - kv_idx <= WINDOW)",
    "window both ways": "lambda b, h, q, kv: abs(q - kv) <= WINDOW // 2",
    "window by torch": "lambda b, h, q_idx, kv_idx: torch.abs(q_idx - kv_idx) <= WINDOW // 2",
    "prefix": "lambda b, h, q_idx, kv_idx: (kv_idx < PREFIX) | (q_idx >= kv_idx)",
    "prefix by batch": "lambda b, h, q_idx, kv_idx: (kv_idx < PREFIX * (b + 1)) | (q_idx >= kv_idx)",
    "attention sinks": "lambda b, h, q_idx, kv_idx: ((q_idx - kv_idx < WINDOW) | (kv_idx < 4)) & (q_idx >= kv_idx)",
    "dilated window": "lambda b, h, q, k: (q >= k) & ((q - k) % 4 == 0) & (q - k < 8 * WINDOW)",
    "dilated by head": "lambda b, h, q, k: (q >= k) & ((q - k) % (h + 1) == 0)",
    "checkerboard by head": "lambda b, h, q, k: (q // 8 + k // 8 + h) % 2 == 0",
    "checkerboard of pairs": "lambda b, h, q, k: (q + k) % 2 == (h & 1)",
    "window that doubles by head": "lambda b, h, q_idx, kv_idx: (q_idx >= kv_idx) & (kv_idx >= q_idx - (2 ** h))",
    "window by shift": "lambda b, h, q_idx, kv_idx: (q_idx >= kv_idx) & (q_idx - kv_idx < (1 << (h + 2)))",
    "blocks": "lambda b, h, q_idx, kv_idx: q_idx // 16 == kv_idx // 16",
    "causal by blocks": "lambda b, h, q_idx, kv_idx: q_idx // 16 >= kv_idx // 16",
    "two blocks": "lambda b, h, q, k: (q // 16 - k // 16 <= 1) & (q // 16 >= k // 16)",
    "strided": "lambda b, h, q, k: (q >= k) & ((q - k < 8) | ((q - k) % 8 == 0))",
    "fixed columns": "lambda b, h, q, k: (q >= k) & ((q // 8 == k // 8) | (k % 8 == 7))",
    "fixed columns by head": "lambda b, h, q, k: (q >= k) & ((q // 8 == k // 8) | (k % 8 == 7 - h))",
    "powers of two": "lambda b, h, q, k: (q >= k) & (((q - k) & (q - k - 1)) == 0)",
    "global rows and columns": "lambda b, h, q, k: (abs(q - k) <= 3) | (q < 4) | (k < 4)",
    "BigBird without chance": "lambda b, h, q, k: (abs(q // 8 - k // 8) <= 1) | (q // 8 == 0) | (k // 8 == 0)"
    " | (k // 8 == (T - 1) // 8) | (q // 8 == (T - 1) // 8)",
    "neighbours in 2-D": "lambda b, h, q, k: (abs(q // 8 - k // 8) <= 2) & (abs(q % 8 - k % 8) <= 2)",
    "NATTEN": "lambda b, h, q, k:"
    " (abs(torch.minimum(torch.maximum(q // 8, KERNEL), 8 - 1 - KERNEL) - k // 8) <= KERNEL)"
    " & (abs(torch.minimum(torch.maximum(q % 8, KERNEL), 8 - 1 - KERNEL) - k % 8) <= KERNEL)",
    "tiles in 2-D": "lambda b, h, q, k: (q // 8 // 4 == k // 8 // 4) & (q % 8 // 4 == k % 8 // 4)",
    "axial": "lambda b, h, q, k: (q // 8 == k // 8) | (q % 8 == k % 8)",
    "column above": "lambda b, h, q, k: (q % 8 == k % 8) & (q >= k)",
    "causal with offset": "lambda b, h, q_idx, kv_idx: q_idx + OFFSET >= kv_idx",
    "anti-causal half of the heads": "lambda b, h, q, k:"
    " torch.where(h % 2 == 0, q, -q) >= torch.where(h % 2 == 0, k, -k)",
    "logical functions": "lambda b, h, q, k:"
    " torch.logical_or(torch.logical_and(q >= k, q - k < 9), torch.logical_not(k > 1))",
    "xor of halves": "lambda b, h, q, k: (q < T // 2) ^ (k < T // 2) | (q == k)",
}  # fmt: skip
CONSTANTS = {"WINDOW": 9, "PREFIX": 6, "OFFSET": 5, "KERNEL": 2, "T": 64}
ARRAYS = SimpleNamespace(
    abs=np.abs, minimum=np.minimum, maximum=np.maximum, where=np.where, logical_and=np.logical_and,
    logical_or=np.logical_or, logical_not=np.logical_not,
)  # fmt: skip


def by_numpy(text, t, h, b):
    mask_mod = eval(text, {"torch": ARRAYS, **CONSTANTS})
    return np.broadcast_to(mask_mod(b, h, np.arange(t)[:, None], np.arange(t)[None]), (t, t))


@pytest.mark.parametrize("name", MASK_MODS)
def test_mask_mods_are_read_as_they_are_written(name):
    assert len(MASK_MODS) >= 30
    for h, b in ((0, 0), (1, 1), (3, 2)):
        wanted = by_numpy(MASK_MODS[name], 64, h, b)
        how = {"head": h, "batch": b, "constants": CONSTANTS}
        np.testing.assert_array_equal(mask_from_formula(MASK_MODS[name], 64, **how), wanted)
        counts = wanted.reshape(4, 16, 4, 16).sum(axis=(1, 3))
        np.testing.assert_array_equal(formula_pairs(MASK_MODS[name], 64, block_size=16, **how), counts)
    assert parse_formula(MASK_MODS[name], constants=CONSTANTS).remarks == ()


# Python's own arithmetic, number by number -------------------------------------------------------------------------
class Whole:
    """A whole number that refuses to leave 64 bits; every operation is Python's."""

    def __init__(self, value):
        if abs(value) > 2**63 - 1:
            raise OverflowError
        self.value = value


def _operation(name, function):
    def run(self, *others):
        return Whole(function(self.value, *(other.value for other in others)))

    setattr(Whole, name, run)


def _power(a, b):
    if b < 0:
        raise ValueError
    if abs(a) > 1 and b > 63:
        raise OverflowError
    return a ** (b if abs(a) > 1 else b % 2 + 2 * (b > 1))


for _name, _function in {
    "__add__": lambda a, b: a + b, "__sub__": lambda a, b: a - b, "__mul__": lambda a, b: a * b,
    "__floordiv__": lambda a, b: a // b, "__mod__": lambda a, b: a % b, "__pow__": _power,
    "__lshift__": lambda a, b: _power(2, b) * a if a else Whole(0 if b >= 0 else 1 << b).value,
    "__rshift__": lambda a, b: a >> b,
    "__and__": lambda a, b: a & b, "__or__": lambda a, b: a | b, "__xor__": lambda a, b: a ^ b,
    "__neg__": lambda a: -a, "__invert__": lambda a: ~a, "__abs__": abs,
}.items():  # fmt: skip
    _operation(_name, _function)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Whole, f"__{_name}__", lambda self, other, n=_name: getattr(self.value, f"__{n}__")(other.value))
Whole.__hash__ = None


def joined(form, *parts):
    """Build a formula and what Python is given for it, from strategies of such pairs."""
    ours, theirs = form if isinstance(form, tuple) else (form, form)
    return st.tuples(*parts).map(lambda found: tuple(
        text.format(*(part[side] for part in found)) for side, text in enumerate((ours, theirs))))  # fmt: skip


def constants(*values):
    return st.sampled_from(values).map(lambda value: (str(value), f"Whole({value})"))


def numbers(*values):
    places = st.sampled_from(("q", "k", "h", "t")).map(lambda name: (name, name))

    def grow(part):
        return st.one_of(
        *(joined(f"({{}} {sign} {{}})", part, part) for sign in ("+", "-", "*", "//", "%", "&", "|", "^")),
        *(joined(f"({{}} {sign} {{}})", part, constants(0, 1, 2, 3, 62)) for sign in ("**", "<<", ">>")),
        joined("(3 ** ({}))", part).map(lambda pair: (pair[0], pair[1].replace("3 **", "Whole(3) **"))),
        *(joined(form, part) for form in ("(-{})", "(~{})", "abs({})")),
        *(joined(form, part, part) for form in ("min({}, {})", "max({}, {})")),
        joined(("where({} < {}, {}, {})", "({2} if {0} < {1} else {3})"), part, part, part, part),
    )  # fmt: skip

    return st.recursive(places | constants(*values), grow, max_leaves=5)


def conditions(part):
    compared = st.one_of(
        *(joined(f"{{}} {sign} {{}}", part, part) for sign in ("<", "<=", ">", ">=", "==", "!=")),
        joined("{} < {} <= {}", part, part, part),
    )

    def grow(found):
        return st.one_of(
        *(joined(f"({{}}) {sign} ({{}})", found, found) for sign in ("and", "or", "&", "|", "^")),
        joined("not ({})", found),
        joined(("~({})", "not ({})"), found),
        joined(("where({}, {}, {})", "(({1}) if ({0}) else ({2}))"), found, found, found),
    )  # fmt: skip

    return st.recursive(compared, grow, max_leaves=4).filter(lambda pair: len(pair[0]) <= 600)


def by_python(text, t, head):
    """Return the mask, or None where Python fails at some pair."""
    code = compile(text, "formula", "eval")
    try:
        return [
            [
                eval(code, {"Whole": Whole, "q": Whole(q), "k": Whole(k), "h": Whole(head), "t": Whole(t)})
                for k in range(t)
            ]
            for q in range(t)
        ]
    except (ZeroDivisionError, OverflowError, ValueError):
        return None


@settings(derandomize=True, deadline=None, max_examples=300)
@given(conditions(numbers(0, 1, 2, 7)), st.integers(0, 2))
def test_any_formula_means_what_python_makes_of_it(pair, head):
    wanted = by_python(pair[1], 5, head)
    if wanted is None:
        with pytest.raises(FormulaError, match=r"at .*column .* at query [0-4], key [0-4]"):
            mask_from_formula(pair[0], 5, head=head)
    else:
        assert mask_from_formula(pair[0], 5, head=head).tolist() == wanted


@settings(derandomize=True, deadline=None, max_examples=150)
@given(conditions(numbers(2**31 - 2, 2**31, 2**62, 2**63 - 2, 2**63 - 1)))
def test_numbers_near_32_and_64_bits_are_exact_or_an_error(pair):
    wanted = by_python(pair[1], 3, 1)
    if wanted is None:
        with pytest.raises(FormulaError):
            mask_from_formula(pair[0], 3, head=1)
    else:
        assert mask_from_formula(pair[0], 3, head=1).tolist() == wanted


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    conditions(numbers(0, 1, 2, 5, 16)), st.sampled_from((1, 3, 8, 29, 64)), st.sampled_from((None, "causal", "ahead"))
)
def test_counts_by_block_are_those_of_the_mask(pair, block, side):
    def failing(call):
        try:
            return call()
        except FormulaError:
            return None

    mask = failing(lambda: mask_from_formula(pair[0], 29, head=1))
    how = {} if side is None else {side: True}
    counts = failing(lambda: formula_pairs(pair[0], 29, block_size=block, head=1, **how))
    if mask is None or counts is None:
        assert mask is None and (counts is None or side)  # what fails may lie in the part that is left out
        return
    past = np.tri(29, dtype=bool)
    mask = mask & {None: True, "causal": past, "ahead": ~past}[side]
    starts = np.arange(0, 29, min(block, 29))
    wanted = np.add.reduceat(np.add.reduceat(mask, starts, axis=0, dtype=np.int64), starts, axis=1)
    np.testing.assert_array_equal(counts, wanted)


SIGNS = ("+", "-", "*", "//", "%", "**", "<<", ">>", "&", "|", "^", "min", "max", "where", "abs", "~", "negative")
FORMS = {"min": "min({}, {})", "max": "max({}, {})", "where": "where(q < k, {}, {})", "abs": "abs({}) - ({})",
         "~": "~({}) - ({})", "negative": "-({}) - ({})"}  # fmt: skip


@pytest.mark.parametrize("sign", SIGNS)
def test_bounds_of_every_sign_hold_what_it_gives(sign):
    """Blocks of every sort of operand, negative, crossing zero and positive, against the mask pair by pair."""
    form, powers = FORMS.get(sign, f"({{}}) {sign} ({{}})"), sign in ("**", "<<", ">>")
    for left, shift, block in itertools.product((5, 6), (0, 2, 5) if powers else (-20, 0, 5, 20), (1, 3)):
        right = f"k + {shift}" if powers else f"k - {shift}"
        starts = np.arange(0, 12, block)
        for c in (-130, -7, -1, 0, 1, 2, 8, 200):
            text = f"{form.format(f'q - {left}', right)} > {c} or q == 11 and k < 0"
            text = f"k != {shift} and {text}" if sign in ("//", "%") else text
            by_rows = np.add.reduceat(mask_from_formula(text, 12), starts, axis=0, dtype=np.int64)
            found = formula_pairs(text, 12, block_size=block)
            np.testing.assert_array_equal(found, np.add.reduceat(by_rows, starts, axis=1), err_msg=text)


@pytest.mark.parametrize("fails", ["1 << (k - 3)", "2 ** (k - 3)", "1 >> (k - 3)", "q // (k - 3)", "q % (k - 3)"])
def test_a_block_that_seems_certain_is_looked_into_where_it_may_fail(fails):
    with pytest.raises(FormulaError, match=r"at query 0, key [03]"):
        formula_pairs(f"({fails} != 7) | True", 12, block_size=3)


def test_bounds_leave_out_what_lies_beyond_them():
    """All of these are decided without a look at the pairs: a limit of no steps is enough."""
    for text in ("q * k >= 0", "q // 8 * 8 <= q - 0 * k or q >= 0", "q % 8 < 8", "-q <= 0", "abs(q - 30) <= 34",
                 "2 ** (q % 4) <= 8", "(k >> 3) < 8", "(q & 7) < 64 and (q | k) < 64 and ~q < 0", "1 << (k % 3) <= 4",
                 "max(q, 9) >= 9 and min(k, 9) <= 9", "where(q < 64, q, 99) < 64", "not (q < 0) and (q >= 0) ^ (k < 0)",
                 "q // 16 + 100 != 3 and q + 1 == q + 1 or True"):  # fmt: skip
        assert formula_pairs(text, 64, block_size=16, most_steps=0).sum() == 64**2, text
    assert not formula_pairs("q // 16 != 0 and q // 16 == 0", 64, block_size=16, most_steps=0).any()


def test_rows_on_their_own():
    rows = np.array([3, 17])
    np.testing.assert_array_equal(
        mask_from_formula("q - k < 4", 20, rows=rows), mask_from_formula("q - k < 4", 20)[rows]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os').system('true')", "column 1, .*not in the vocabulary"),
        ("q.real >= k", "column 1, 'q.real' is not in the vocabulary"),
        ("[q for q in k]", "not in the vocabulary"),
        ("(lambda: q)() > k", "not in the vocabulary"),
        ("q > os.system", "column 5, 'os.system' is not in the vocabulary"),
        ("q > k and x > k", "column 11, 'x' is a name without a value, so not in the vocabulary"),
        ("q >= 1.5", "column 6, '1.5' is not a whole number, so not in the vocabulary"),
        ("q / k > 1", "division with a fraction.*// divides"),
        ("document[q_idx] == document[kv_idx]", "column 1, 'document.q_idx.' is read from an array: .*depends on data"),
        ("lambda b, h, q_idx, kv_idx: doc[q_idx] == doc[kv_idx]", "column 29, .*depends on data"),
        ("q - k", "a number, not a condition"),
        ("q and k", "column 1, 'q' in 'q and k' must be a condition"),
        ("(q > k) + 1 > 0", "column 2, .*must be a number"),
        ("where(q > k, q, q > 3) > 1", "not one of each"),
        ("where(q, q, k) > 1", "must be a condition"),
        ("q >=", "column 5, this is not a formula"),
        ("(q >= k", "column 1, this is not a formula: .*never closed"),
        ("q >= k\nand q < 3", "line 2, column 1, this is not a formula.*several lines in brackets"),
        ("", "not a formula"),
        ("q > k; k > q", "2 statements"),
        ("import os", "a statement"),
        ("def mask(b, h, q, k):\n    return q >= k", "a def is not read"),
        ("lambda q, k: q >= k", "four arguments: b, h, q_idx, kv_idx"),
        ("lambda b, h, q, k=3: q >= k", "four arguments"),
        ("lambda *names: True", "four arguments"),
        ("min(q) > 1", "'min.q.' takes 2 to 9 arguments, got 1"),
        ("max(q, k, key=abs) > 1", "not in the vocabulary"),
        ("(q >= k) & q - k < 4", "column 1, '&' joins a condition and the number 'q - k'; it binds tighter"),
        ("99999999999999999999 > q", "too large; numbers go up to 2.63 - 1"),
        ("q ** 63 > k", "column 6, powers and shifts go up to 62, got 63"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_with_its_column(text, words):
    with pytest.raises(FormulaError, match=words) as caught:
        parse_formula(text)
    assert str(caught.value).startswith("parse_formula: ") and caught.value.words[0].isupper()


def test_limits_are_where_they_are_said_to_be():
    assert parse_formula("q > k" + "\n" * 995)(2, 1)
    with pytest.raises(FormulaError, match="at most 1,000 characters, got 1,001"):
        parse_formula("q > k".ljust(1001))
    largest = 2**63 - 1
    assert parse_formula(f"q < {largest}")(0, 0) and parse_formula(f"q > -{largest}")(0, 0)
    with pytest.raises(FormulaError, match="too large"):
        parse_formula(f"q < {2**63}")
    assert parse_formula("-" * 55 + "q < k")(1, 0)
    with pytest.raises(FormulaError, match="60"):
        parse_formula("-" * 65 + "q < k")
    with pytest.raises(FormulaError, match="at most 200 and 60"):
        parse_formula(" or ".join(["q > k"] * 60))
    with pytest.raises(FormulaError):
        parse_formula("(" * 400 + "q > k" + ")" * 400)


@pytest.mark.parametrize(
    ("text", "python", "told"),
    [
        ("q_idx >= kv_idx & q_idx - kv_idx < 4", (Q >= (K & (Q - K))) & ((K & (Q - K)) < 4), ["column 10, '&'"]),
        ("q >= k | 3 < 9", (Q >= (K | 3)) & ((K | 3) < 9), ["column 6, '|'"]),
        (
            "(q < 3 ^ k and\nk > q & 1)",
            (Q < (3 ^ K)) & (K > (Q & 1)),
            ["line 1, column 6, '^'", "line 2, column 5, '&'"],
        ),
        ("(q >= k) & (q - k < 4)", (Q >= K) & (Q - K < 4), []),
        ("q >= (k & 7)", Q >= (K & 7), []),
        ("( q & 7 ) == max(0, k & 1)", (Q & 7) == (K & 1), []),
    ],
)  # fmt: skip
def test_a_sign_that_binds_tighter_than_it_looks_is_remarked(text, python, told):
    """'q >= k & q - k < 4' is 'q >= (k & (q - k)) < 4' in Python, not two conditions."""
    remarks = parse_formula(text).remarks
    assert len(remarks) == len(told)
    for remark, words in zip(remarks, told, strict=True):
        assert words in remark and "binds tighter" in remark and "brackets" in remark
    np.testing.assert_array_equal(mask_from_formula(text, 20), python)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q // (k - k) > 1", "at column 1, 'q // .k - k.' divides by zero at query 0, key 0"),
        ("q > 2 and k % (q - 5) == 0", "column 11, .*divides by zero at query 5, key 0"),
        ("2 ** (q - 3) > k", "has a negative power or shift at query 0, key 0"),
        ("k ** 20 > q", r"'k \*\* 20' is beyond 64 bits at query 0, key 9"),
        ("2 ** (q + 64) > k", "is beyond 64 bits at query 0, key 0"),
        ("(1 << k * 9) + q > 1", "'1 << k . 9' is beyond 64 bits at query 0, key 7"),
        ("(q >= k) and (\nq // k > 1)", "line 2, column 1, .*at query 0, key 0"),
    ],
)
def test_what_fails_names_the_pair(text, words):
    with pytest.raises(FormulaError, match=words):
        mask_from_formula(text, 20)
    with pytest.raises(FormulaError, match=words):
        formula_pairs(text, 20, block_size=20)


def test_what_does_not_matter_does_not_fail():
    np.testing.assert_array_equal(mask_from_formula("k != 0 and q % k == 0", 20)[:, 1:], Q % K[1:] == 0)
    assert mask_from_formula("k == 0 or q // k >= 0", 20).all()
    assert mask_from_formula("where(k == 0, 1, q // max(k, 0)) >= 0", 20).all()
    assert formula_pairs("0 < k < 9 and k ** 20 > 0", 30, block_size=7).sum() == 30 * 8
    for text in ("(-1) ** (q + 70) == 1 - 2 * (q % 2)", "0 ** (q + 64) == 0 << (k + 99)", "1 ** (k + 200) == 1",
                 "(q - 5) >> (k + 80) == where(q < 5, -1, 0)"):  # fmt: skip
        assert mask_from_formula(text, 20).all(), text
    with pytest.raises(FormulaError, match="divides by zero"):
        mask_from_formula("(k != 0) & (q % k == 0)", 20)


def test_numbers_do_not_wrap():
    """At 2^20 tokens q * q * q * q needs 80 bits; NumPy would wrap it to zero at q = 2^16."""
    rows = np.array([2**16])
    with pytest.raises(FormulaError, match="beyond 64 bits at query 65536, key 0"):
        mask_from_formula("q * q * q * q > k", 2**17, rows=rows)
    assert mask_from_formula("q * q * q > k", 2**17, rows=rows).all()
    assert mask_from_formula("(q << 46) > k", 2**17, rows=rows).all()
    with pytest.raises(FormulaError, match="beyond 64 bits"):
        mask_from_formula("(q << 47) > k", 2**17, rows=rows)


@pytest.mark.parametrize("block", [64, 128])
def test_long_masks_are_counted_by_blocks(block):
    """A window of 100 and 10 first keys at 65,536 tokens: 2^32 pairs, of which no array is made."""
    t = 65536
    counts = formula_pairs("q >= k and (q - k < 100 or k < 10)", t, block_size=block)
    window = 100 * t - 100 * 99 // 2
    assert counts.sum() == window + 10 * (t - 109) + 9 * 10 // 2
    full, empty = counts == block**2, counts == 0
    assert not np.triu(counts, 1).any() and full.sum() == 0 and empty.sum() > 0.99 * counts.size - 2 * t // block


@pytest.mark.parametrize("t", [0, 1, 2])
def test_masks_of_no_and_of_few_tokens(t):
    assert mask_from_formula("q >= k", t).shape == (t, t)
    counts = formula_pairs("q >= k", t, block_size=16)
    assert counts.shape == (-(-t // 16),) * 2 and counts.sum() == t * (t + 1) // 2


def test_too_much_work_is_refused_before_it_is_done():
    with pytest.raises(ValueError, match=r"256 of 256 blocks .* at most 1,000 are made here, so take fewer tokens"):
        formula_pairs("(q - k) % 3 == 0", 2048, block_size=128, most_steps=1000)
    assert formula_pairs("q - k < 300", 2048, block_size=128, most_steps=10**8).sum()
    with pytest.raises(ValueError, match="take larger blocks"):
        formula_pairs("q >= k", 2**20, block_size=16)
    with pytest.raises(ValueError, match="fewer rows, or for their number in every block"):
        mask_from_formula("q >= k", 65536)
    with pytest.raises(ValueError, match="take one of them"):
        formula_pairs("q >= k", 4, block_size=2, causal=True, ahead=True)


@pytest.mark.parametrize(
    ("constants", "error", "words"),
    [
        ({"w": 1.5}, TypeError, r"constants\['w'\] must be an int"),
        ({"q": 3}, ValueError, "the name 'q'; take a word"),
        ({"a b": 3}, ValueError, "the name 'a b'"),
        ({3: 3}, ValueError, "the name 3"),
        ({"w": 2**63}, ValueError, "must be an int from"),
        ([("w", 3)], TypeError, "must map names to whole numbers, got list"),
    ],
)
def test_constants_are_words_for_whole_numbers(constants, error, words):
    with pytest.raises(error, match=words):
        parse_formula("q >= k", constants=constants)
