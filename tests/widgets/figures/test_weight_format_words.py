"""Formats of a weight in words and in columns of numbers."""

from dataclasses import replace

import numpy as np
import pytest

from widgets.figures.weight_format import Machine, product
from widgets.figures.weight_format_words import (
    about_html,
    bytes_columns,
    bytes_words,
    headline,
    roofline_columns,
    roofline_words,
    step_columns,
    step_words,
    times_words,
)

ONE = Machine(label="a machine", gflops=100.0, gbps=10.0, origin="two numbers")


def test_the_headline_names_the_smallest_sparse_format_and_what_is_left_out(weight_scene):
    said = headline(weight_scene)
    assert "2 x 4, 3 weights kept (sparsity 0.625)" in said
    assert "8 bytes at 8 bits a value" in said and "<b>NM</b>, takes 5" in said and "0.56 times the dense bytes" in said
    assert "Left out: blocks: &lt;odd&gt;." in said
    assert "Left out" not in headline(replace(weight_scene, left_out=()))


def test_a_format_is_told_with_its_kernel(weight_scene):
    assert "About csr. A kernel." in about_html(weight_scene.stored("csr"))


def test_bytes_are_told_format_by_format(weight_scene):
    told = bytes_words(weight_scene)
    assert "DENSE 8 B; CSR 21 B; NM 5 B; WORDS 28 B" in told and "at least 4 B" in told
    columns = bytes_columns(weight_scene)
    assert list(columns["indices (B)"]) == [0, 6, 0.375, 6] and list(columns["total (B)"]) == [8, 21, 5, 28]
    np.testing.assert_allclose(columns["bits a kept weight"], [64 / 3, 56, 12, 224 / 3])
    np.testing.assert_allclose(columns["share of dense"], [1, 2.625, 0.5625, 3.5])


@pytest.mark.parametrize(
    ("key", "step", "told"),
    [
        ("csr", 1, "One entry of row 0 and column 3: 1 value (1 B) and 1 index (2 B). It takes 2 x fma with 1 row of "
                   "activations, for 8 columns of them."),
        ("dense", 0, "One row of row 0 and columns 0 to 3: 4 values (4 B, 2 of them stored zeros). It takes 4 x fma "
                     "with 4 rows of activations"),
        ("nm", 2, "One 1 of 2 of row 1 and column 0: 1 value (1 B, 1 of them stored zeros) and 1 index (1 bits)"),
        ("words", 0, "in the fullest bank meet 2 words if they lie row by row and 1 if they are dealt"),
        ("csr", -1, "CSR: 3 steps of one entry each read the whole weight."),
    ],
)  # fmt: skip
def test_a_step_is_told_with_what_it_reads_and_what_it_takes(weight_scene, key, step, told):
    assert told in step_words(weight_scene, weight_scene.stored(key), step)


def test_rows_that_do_not_follow_each_other_are_listed(weight_scene):
    words = weight_scene.stored("words")
    both = replace(words, value_edges=np.array([0, 4]), banks=None, index_edges=np.zeros(2, int))
    assert "of rows 0 to 1 and columns 0, 2, 3: 4 values" in step_words(weight_scene, both, 0)


def test_a_weight_without_entries_has_no_step(weight_scene):
    none = replace(weight_scene.stored("csr"), value_edges=np.zeros(1, int))
    assert step_words(weight_scene, none, 0) == "CSR: the weight holds no entry, so no step reads anything."
    assert len(step_columns(none, 0)["array"]) == 0


def test_the_columns_of_a_step_are_its_values_and_its_indices(weight_scene):
    found = step_columns(weight_scene.stored("csr"), 1)
    assert found["array"].tolist() == ["values", "indices"] and found["content"].tolist() == [-7, 3]
    assert (found["row"].tolist(), found["column"].tolist()) == ([0, -1], [3, -1])
    assert len(step_columns(weight_scene.stored("csr"), -1)["array"]) == 0


def test_the_roofline_and_the_times_are_told(weight_scene):
    products = [product(weight_scene, each, 4, ONE) for each in weight_scene.formats]
    told = roofline_words(weight_scene, products, ONE, 4)
    assert "a machine, 4 columns of activations, with two numbers (modelled): DENSE 2 flops a byte, 20 Gflop/s" in told
    assert "CSR 0.0045 us" in times_words(weight_scene, products)
    columns = roofline_columns(weight_scene, ONE, 4)
    assert list(columns["moved (B)"]) == [32, 45, 29, 52] and list(columns["flops"]) == [64, 24, 32, 64]
    np.testing.assert_allclose(columns["times as fast as dense"], [1, 32 / 45, 32 / 29, 32 / 52])
