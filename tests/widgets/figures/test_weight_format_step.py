"""What a step reads, in cells, lanes, registers and banks."""

from dataclasses import replace

import numpy as np

from widgets.figures.sentence import sentence_of
from widgets.figures.weight_format_step import (
    TILE,
    banks_figure,
    index_picture,
    lanes_figure,
    number,
    registers_figure,
    tile_of,
    tile_picture,
    value_picture,
)

EMPTY, WEIGHT, ZERO, NOW, READ = range(5)


def empty(stored):
    none = np.zeros(0, np.int64)
    return replace(stored, row=none, column=none, value=none, read=none, value_edges=np.zeros(1, int),
                   index=none, index_edges=np.zeros(1, int))  # fmt: skip


def test_numbers_are_short():
    assert [number(x) for x in (3.0, -0.125, 123.4)] == ["3", "-0.12", "123"]


def test_the_matrix_shows_what_is_stored_and_what_is_read_now(weight_scene):
    found = tile_picture(weight_scene, weight_scene.stored("nm"), 3)
    np.testing.assert_array_equal(found["cells"], [[WEIGHT, 0, 0, WEIGHT], [ZERO, 0, NOW, 0]])
    assert found["frames"].tolist() == [[1, 2]] and (0, 3, "-7") in found["texts"]
    assert "3 of 8 places hold a weight; the step reads 1 of these places, 0 of them zero" in found["alt"]
    dense = tile_picture(weight_scene, weight_scene.stored("dense"), 1)
    np.testing.assert_array_equal(dense["cells"], [[WEIGHT, ZERO, ZERO, WEIGHT], [ZERO, ZERO, NOW, ZERO]])
    assert "reads 4 of these places, 3 of them zero" in dense["alt"]


def test_of_a_large_matrix_the_part_around_the_step_is_drawn(weight_scene):
    large = replace(weight_scene, weight=np.ones((100, 200), np.float32))
    csr = weight_scene.stored("csr")
    far = replace(csr, row=csr.row + 90, column=csr.column + 100)
    assert tile_of(weight_scene, csr, 0) == (0, 2, 0, 4)
    assert tile_of(large, far, 0) == (100 - TILE[0], 100, 88, 88 + TILE[1])  # column 100 is in it, rows end at 100
    assert tile_of(large, empty(csr), 0) == (0, TILE[0], 0, TILE[1])
    picture = tile_picture(large, far, 0)
    assert picture["cells"].shape == TILE and picture["frames"].tolist() == [[22, 12]]
    assert "rows 68 to 99, columns 88 to 135" in picture["title"]


def test_arrays_are_cut_into_lines_around_what_is_read(weight_scene):
    csr = weight_scene.stored("csr")
    values, indices = value_picture(csr, 1), index_picture(csr, 1)
    np.testing.assert_array_equal(values["cells"], [[WEIGHT, NOW, WEIGHT, EMPTY]])
    np.testing.assert_array_equal(indices["cells"], [[READ, NOW, READ, EMPTY]])
    assert values["texts"] == [(0, 0, "5"), (0, 1, "-7"), (0, 2, "3")]
    assert values["title"] == "Values: 3 stored" and indices["alt"].endswith("reads 1 of them: 3.")
    long = replace(csr, value=np.ones(400, np.float32), read=np.arange(400), value_edges=np.arange(401))
    part = value_picture(long, 200)
    assert part["cells"].shape == (16, 4) and part["title"] == "Values: 400 stored, 184 to 247"
    assert part["frames"].tolist() == [[4, 0]] and part["cells"][4, 0] == NOW
    assert value_picture(empty(csr), 0)["title"] == "Values: none are stored"


def test_words_are_shown_by_bank_and_those_that_meet_stand_out(weight_scene):
    words = weight_scene.stored("words")
    assert [text for _, _, text in value_picture(words, 0)["texts"]] == ["3", "3", "3", "4"]
    np.testing.assert_array_equal(value_picture(words, 0)["cells"], [[NOW, NOW, WEIGHT, ZERO]])
    np.testing.assert_array_equal(value_picture(words, 1)["cells"], [[WEIGHT, WEIGHT, READ, READ]])


def test_the_registers_add_up_to_32(weight_scene):
    figure = registers_figure(weight_scene.formats[0])
    assert {bar.name: bar.x[0] for bar in figure.data} == {"sums: 6": 6, "weight: 1": 1, "temporaries and free: 25": 25}
    unknown = replace(weight_scene.formats[0], kernel=replace(weight_scene.formats[0].kernel, registers={}))
    assert sentence_of(registers_figure(unknown)) == "A kernel."


def test_lanes_hold_rows_of_activations_weights_and_results(weight_scene):
    grid = lanes_figure(weight_scene.stored("csr"), 1).data[0]
    assert [row[0] for row in grid.customdata] == ["X[3, n]", "W[0, .] = -7", "C[0, n] += W X"]
    assert [row[0] for row in grid.z] == [1.5, 2.5, 3.5]  # a colour for each kind of register
    assert len(grid.x) == 4  # lanes
    picked = lanes_figure(weight_scene.stored("nm"), 3).data[0]
    assert [row[0] for row in picked.customdata][:2] == ["X[2, n], picked", "X[3, n], not read"]
    assert picked.z[1][0] != picked.z[0][0]
    assert "no step reads anything" in sentence_of(lanes_figure(empty(weight_scene.stored("csr")), 0))


def test_banks_are_counted_for_both_orders_on_one_scale(weight_scene):
    banks = weight_scene.stored("words").banks
    plain, dealt = banks_figure(banks, 0).data
    assert plain.y[3] == 2 and sum(plain.y) == 2 and (dealt.y[3], dealt.y[4]) == (1, 1)
    assert plain.marker.pattern.shape[3] == "/" and dealt.marker.pattern.shape[3] == ""
    figure = banks_figure(banks, 0)
    titles = [each.text for each in figure.layout.annotations]
    assert titles[0] == "words row by row (shown): 1.50 at the fullest bank, on average" and "dealt" in titles[1]
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range == (0, 2.5)
    none = replace(banks, plain=banks.plain[:0], dealt=banks.dealt[:0])
    assert "no word is stored" in sentence_of(banks_figure(none, 0))
