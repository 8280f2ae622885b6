"""Formats of a weight in pictures: bytes by kind and their order, places on a roofline, least times."""

import math
from dataclasses import replace

import numpy as np
import pytest

from widgets.figures.sentence import sentence_of
from widgets.figures.weight_format import (
    KINDS,
    PADDING,
    Machine,
    bytes_figure,
    product,
    roofline_figure,
    share_of_dense,
    times_figure,
)

ONE = Machine(label="a machine", gflops=100.0, gbps=10.0, origin="two numbers")


def products(scene, tokens, machine=ONE):
    return [product(scene, each, tokens, machine) for each in scene.formats]


def nothing(scene):
    return replace(scene, weight=np.zeros((0, 4), np.float32), formats=tuple(
        replace(each, bits=dict.fromkeys(KINDS, 0), multiply_adds=0) for each in scene.formats))  # fmt: skip


def test_a_format_adds_its_kinds_up_to_whole_bytes(weight_scene):
    assert [each.nbytes for each in weight_scene.formats] == [8, 21, 5, 28]  # 64, 168, 36 and 224 bits
    assert share_of_dense(weight_scene, 168) == 168 / 64
    assert weight_scene.nnz == 3
    assert weight_scene.stored("csr").key == "csr" and weight_scene.stored("no such").key == "dense"


def test_steps_read_their_own_slots(weight_scene):
    csr, words = weight_scene.stored("csr"), weight_scene.stored("words")
    assert csr.steps == 3 and list(csr.slots(1)) == [1] and list(words.slots(1)) == [2, 3]


def test_the_fullest_bank_is_counted_at_every_step(weight_scene):
    banks = weight_scene.stored("words").banks
    assert list(banks.fullest("plain")) == [2, 1] and list(banks.fullest("dealt")) == [1, 1]
    assert banks.shown is banks.plain and replace(banks, order="dealt").shown is banks.dealt


def test_a_product_moves_everything_once_and_the_lower_ceiling_holds(weight_scene):
    dense, csr = products(weight_scene, 4)[:2]
    assert (dense.flops, dense.bytes) == (2 * 8 * 4, 8 + (2 + 4) * 4)  # activations and result of 8 bits
    assert (csr.flops, csr.bytes) == (2 * 3 * 4, 21 + 24)
    assert dense.intensity == 2.0 and dense.gflops == 20.0  # 10 GB/s times 2 flops a byte, under the peak of 100
    assert dense.least_us == pytest.approx(64 / 20e3)
    fast = replace(ONE, gbps=1000.0)
    assert product(weight_scene, weight_scene.formats[0], 4, fast).gflops == 100.0
    assert products(nothing(weight_scene), 4)[0].least_us == 0


def test_bars_are_bytes_and_the_legend_reads_as_the_bars_are_stacked(weight_scene):
    figure = bytes_figure(weight_scene, "csr")
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [bar.name for bar in bars] == list(KINDS) and figure.layout.legend.traceorder == "normal"
    np.testing.assert_array_equal([bar.x for bar in bars],
                                  [[3, 3, 3, 6], [0, 6, 0.375, 6], [0, 12, 0, 12], [5, 0, 1.125, 4]])  # fmt: skip
    assert list(bars[0].y) == ["DENSE", "<b>CSR</b>", "NM", "WORDS"]
    assert bars[KINDS.index(PADDING)].marker.pattern.shape == "/"  # not by colour alone
    texts = figure.data[len(KINDS)]
    assert texts.text[1] == " 21 B, 2.62 x dense" and list(texts.x) == [8, 21, 4.5, 28]
    bound = figure.data[-1]
    assert list(bound.x) == [3.75, 3.75] and "4 B" in figure.layout.title.text
    assert figure.layout.meta["leastWidth"] > 500  # names, bars and numbers; a phone scrolls them
    assert max(len(trace.name or "") for trace in figure.data) < 25  # or the legend falls into one column


def test_the_roofline_puts_each_format_under_the_ceilings(weight_scene):
    figure = roofline_figure(weight_scene, products(weight_scene, 4), ONE, 4, "csr")
    roof, dense, csr = figure.data[:3]
    np.testing.assert_allclose(roof.x, [0.1, 10, 100])
    np.testing.assert_allclose(roof.y, [1, 100, 100])
    assert (dense.x[0], dense.y[0]) == (2.0, 20.0)
    assert csr.marker.size > dense.marker.size and csr.marker.symbol != dense.marker.symbol
    assert figure.layout.xaxis.dtick == figure.layout.yaxis.dtick == 1
    ends = [10**end for end in figure.layout.yaxis.range]
    assert ends[0] <= roof.y[0] < min(each.gflops for each in products(weight_scene, 4)) and ends[1] > 100


def test_bars_of_time_say_what_limits_them(weight_scene):
    slow = replace(ONE, gflops=15.0)  # its ridge is at 1.5 flops a byte, between dense and CSR
    figure = times_figure(weight_scene, products(weight_scene, 4, slow), slow, "dense")
    bar = figure.data[0]
    assert list(bar.customdata) == ["arithmetic", "memory", "memory", "memory"]
    assert list(bar.marker.pattern.shape) == ["/", "", "", ""]
    assert bar.text[0].endswith("1.00 x as fast as dense")
    assert bar.x[1] == pytest.approx(45 / 10e3)  # bytes over bandwidth
    assert math.isclose(float(bar.text[1].split()[2]), round(64 / 15 / 4.5, 2))


def test_what_cannot_be_drawn_is_a_sentence(weight_scene):
    empty = nothing(weight_scene)
    none = products(empty, 4)
    assert "nothing to store" in sentence_of(bytes_figure(empty, "csr"))
    assert "nothing to multiply" in sentence_of(roofline_figure(empty, none, ONE, 4, "csr"))
    assert "nothing to multiply" in sentence_of(times_figure(empty, none, ONE, "csr"))
