"""Printed pictures: round numbers on their axes, the same shapes in both forms, words that fit."""

from xml.etree import ElementTree

import numpy as np
import pytest

from widgets.canvas import pens, sheet


@pytest.mark.parametrize(
    ("window", "wanted"),
    [
        ((0, 1), [0]),
        ((0, 3), [0, 1, 2]),
        ((0, 7), [0, 2, 4, 6]),
        ((10, 60), [10, 20, 30, 40, 50]),
        ((17, 19), [17, 18]),
        ((0, 65_536), [0, 20_000, 40_000, 60_000]),
        ((999, 1001), [999, 1000]),
        ((123_457, 123_458), [123_457]),
    ],
)
def test_ticks_are_round_inside_and_few(window, wanted):
    assert sheet.ticks(*window) == wanted


def test_ticks_of_every_size_are_few_and_inside(rng):
    for first, extent in rng.integers(1, 10**6, (300, 2)):
        found = sheet.ticks(int(first), int(first + extent))
        assert 1 <= len(found) <= 7 and all(first <= tick < first + extent for tick in found)


def made(**more):
    given = {
        "pixels": np.zeros((3, 5, 3), np.uint8),
        "window": (0, 3, 0, 5),
        "title": "a long title " * 20,
        "caption": "and what it shows, at some length. " * 8,
        "axes": ("query", "key"),
        "appearance": "light",
        "swatches": [("#0072B2", f"meaning {i}") for i in range(12)],
    }
    return sheet.Sheet(**(given | more))


def test_words_stay_inside_the_picture():
    root = ElementTree.fromstring(sheet.svg(made()))
    width, height = (float(x) for x in root.get("viewBox").split()[2:])
    texts = list(root.iter("{http://www.w3.org/2000/svg}text"))
    assert len(texts) > 20
    for node in texts:
        x, y, size = (float(node.get(name)) for name in ("x", "y", "font-size"))
        length = 0.6 * size * len(node.text)
        left = x - {"start": 0, "middle": 0.5, "end": 1}[node.get("text-anchor")] * length
        assert left >= -1 and left + length <= width + 40 and 0 < y < height, node.text


def test_both_forms_draw_the_same_boxes_and_words(monkeypatch):
    drawn = {}
    for form, pen in (("svg", pens.SvgPen), ("png", pens.PngPen)):
        calls = drawn[form] = []
        for name in ("box", "text", "pixels"):
            plain = getattr(pen, name)

            def noted(self, *args, plain=plain, name=name, calls=calls, **more):
                calls.append((name, [a for a in args if not isinstance(a, np.ndarray)], more))
                return plain(self, *args, **more)

            monkeypatch.setattr(pen, name, noted)
    sheet.svg(made()), sheet.png(made())
    assert drawn["svg"] == drawn["png"] and len(drawn["svg"]) > 40


def test_without_words_a_picture_is_less_high_and_as_wide():
    sizes = [np.frombuffer(sheet.png(made(), worded=worded)[16:24], ">u4").tolist() for worded in (True, False)]
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] > sizes[1][1]


@pytest.mark.parametrize("words", ["×≤–", "größer", "матрица", "λ → ∞"])
def test_words_of_any_script_are_drawn(words):
    assert sheet.png(made(title=words)).startswith(b"\x89PNG")
    assert pens._in_ascii("größer – 3 × 4 ≤ 5") == "groer - 3 x 4 <= 5"
