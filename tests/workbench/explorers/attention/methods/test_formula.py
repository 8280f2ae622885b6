"""A formula in the explorer: head by head, by blocks at any length, with its constants, and what is wrong below it."""

import threading
import time

import numpy as np
import pytest
import torch

from kernels.cancel import Cancelled, CancelToken
from widgets.controls.knob import KnobError
from workbench.explorers.attention.explorer import explorer, view_class
from workbench.explorers.attention.method import methods
from workbench.explorers.attention.source import of_head

SETTINGS = {knob.key: knob.default for knob in view_class().knobs}
FORMULA = methods()["formula"]


def given(t=100, head=2, *, causal=True, heads=4):
    x = torch.ones(1, heads, t, 4)
    return of_head("made up", x, x, x, head, causal=causal)


def traced(text, t=100, *, head=2, causal=True, **more):
    return FORMULA.trace(given(t, head, causal=causal), SETTINGS | {"formula": text} | more)


@pytest.mark.parametrize("head", [0, 1, 3])
def test_h_is_the_head_shown_and_every_head_is_counted(head):
    q, k = np.arange(100)[:, None], np.arange(100)
    seen = traced("(q >= k) & (k >= q - (2 ** h))", head=head)
    np.testing.assert_array_equal(seen.allowed, (q >= k) & (k >= q - 2**head))
    told = [((q >= k) & (k >= q - 2**each)).sum() / 5050 for each in range(4)]
    assert seen.facts["density, head by head (counted)"] == " ".join(f"{share:.3g}" for share in told)
    assert "density, head by head (counted)" not in traced("q >= k").facts


def test_constants_are_the_slider_the_block_and_those_given():
    q, k = np.arange(100)[:, None], np.arange(100)
    seen = traced(
        "q >= k and (q - k < w or q // block == k // block or k < PREFIX + LESS)",
        w=3, block=16, constants="PREFIX = 1_0, LESS=-4;",
    )  # fmt: skip
    wanted = (q >= k) & ((q - k < 3) | (q // 16 == k // 16) | (k < 6))
    np.testing.assert_array_equal(seen.allowed, wanted)


@pytest.mark.parametrize("causal", [True, False])
def test_by_blocks_a_long_mask_is_what_a_short_one_is_by_pairs(causal, monkeypatch):
    text, more = "abs(q - k) < 9 or k < 4 and q % 3 == 0 or h > 5 * k", {"block": 16, "causal": causal}
    short = traced(text, 1000, **more)
    monkeypatch.setattr("workbench.explorers.attention.methods.formula.DENSE_LIMIT", 999)
    long = traced(text, 1000, **more)
    assert long.allowed is None and long.attention is None and long.cost == short.cost
    np.testing.assert_array_equal(long.keep, short.keep)
    shares = np.add.reduceat(np.add.reduceat(short.allowed, range(0, 1000, 16), axis=0, dtype=float),
                             range(0, 1000, 16), axis=1)  # fmt: skip
    inside = np.minimum(16, 1000 - 16 * np.arange(63))
    np.testing.assert_allclose(long.maps["blocks"], shares / inside[:, None] / inside, rtol=1e-6)
    label = "pairs of the formula that look ahead, left out (counted)"
    assert long.facts.get(label) == short.facts.get(label) and (label in short.facts) == causal


def test_65536_tokens_are_drawn_by_blocks():
    view = explorer(
        method="formula", input="slash", tokens=65536, block=128, w=4096, left="blocks", right="keep"
    ).wait()
    try:
        seen, n = view.scene.result, 512
        assert view.error == "" and seen.keep.shape == (n, n) and view.scene.query is None

        def within(width):  # blocks of a band below the diagonal
            return width * n - width * (width - 1) // 2

        assert seen.keep.sum() == within(33) + n - 33 and view.left_canvas.size == [n, n]
        full = (seen.maps["blocks"] == 1).sum()
        assert full == within(32) - n  # neither the diagonal nor the window's edge
        kinds = f"{full:,} / {seen.keep.sum() - full:,} / {n * n - seen.keep.sum():,}"
        assert seen.facts["blocks full / partial / empty (counted)"] == kinds
        assert view.left_canvas._source.weights[40, 20] == 1
    finally:
        view.close()


def test_work_that_is_too_long_is_refused_and_cancelled(monkeypatch):
    monkeypatch.setattr("workbench.explorers.attention.methods.formula.MOST_STEPS", 10**6)
    with pytest.raises(ValueError, match="at most 1,000,000 are made here, so take fewer tokens"):
        traced("(q - k) % 3 == 0", 5000, block=128)
    monkeypatch.undo()
    token, ended = CancelToken(), []

    def work():
        with token, pytest.raises(Cancelled):
            traced("(q * k - k) % 3 == 0", 65536, block=128)
        ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    token.cancel()
    asked = time.monotonic()
    thread.join(10)
    assert ended and ended[0] - asked < 1


@pytest.mark.parametrize(
    ("more", "key", "words"),
    [
        ({"formula": "q > x"}, "formula", "At column 5, 'x' is a name without a value, so not in the vocabulary"),
        ({"formula": "q // (k - 3) > 1"}, "formula", "At column 1, 'q // (k - 3)' divides by zero at query 0, key 3"),
        ({"constants": "W"}, "constants", "'W' is no name and whole number, such as PREFIX = 64"),
        ({"constants": "A = 2, q = 3"}, "constants", "q already has a meaning in a formula; take another name"),
    ],
)
def test_what_is_wrong_stands_below_its_field(more, key, words):
    with pytest.raises(KnobError) as caught:
        traced("q >= k", **more) if "formula" not in more else traced(more["formula"])
    assert caught.value.key == key and str(caught.value) == words
    view = explorer(method="formula", input="slash", tokens=64, **more).wait()
    try:
        assert view._panel.notes == {key: ["error", words + "."]} and view.error == words + "."
        assert view.state[key] == more[key]  # what a reader wrote stays
        view.set_trait(key, "q >= k" if key == "formula" else "")
        assert view.wait().error == "" and view._panel.notes == {}
    finally:
        view.close()


def test_a_formula_that_may_mean_something_else_is_drawn_with_a_remark():
    view = explorer(method="formula", input="slash", tokens=64, formula="q >= k & q - k < 4").wait()
    try:
        kind, text = view._panel.notes["formula"]
        assert kind == "note" and "binds tighter" in text and view.error == ""
        q, k = np.arange(64)[:, None], np.arange(64)
        np.testing.assert_array_equal(view.scene.result.allowed, (q >= (k & (q - k))) & ((k & (q - k)) < 4) & (q >= k))
    finally:
        view.close()


def test_the_field_takes_a_row_says_what_it_takes_and_lists_every_name():
    view = explorer(method="formula", input="slash", tokens=64).wait()
    try:
        spec = next(spec for spec in view._panel.controls if spec["key"] == "formula")
        assert spec["code"] and spec["lines"] == 2 and "lambda b, h, q_idx, kv_idx" in spec["help"]
        for word in ("q_idx", "kv_idx", "h is the head", "block", "//", "<<", "where", "torch.logical_and", "def"):
            assert word in spec["more"]
        view.method = "xattention"
        assert not [spec for spec in view.wait()._panel.controls if spec.get("code")] and view._panel.notes == {}
    finally:
        view.close()
