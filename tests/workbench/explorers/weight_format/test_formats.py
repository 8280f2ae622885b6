"""Every storage format of the explorer: slots are the weight, steps read each of them once, bits are counted."""

import numpy as np
import pytest

from kernels.formats.nm_packed import NMPacked
from kernels.formats.tiled_csl import TiledCSL
from kernels.masks.blocks import block_prune_mask
from kernels.masks.nm import nm_mask
from widgets.figures.weight_format import KINDS, PADDING
from workbench.explorers.weight_format.formats import FORMATS, Choice, store


def drawn(m, k, density, rng):
    values = rng.integers(1, 90, (m, k)) * rng.choice((-1, 1), (m, k))
    return np.where(rng.random((m, k)) < density, values, 0).astype(np.float32)


def weights(rng):
    yield "at any places", drawn(32, 48, 0.3, rng)
    yield "empty", np.zeros((8, 16), np.float32)
    yield "full", drawn(16, 16, 1.1, rng)
    dense = drawn(64, 64, 1.1, rng)
    yield "4 x 1 blocks", np.where(block_prune_mask(np.abs(dense), 0.7, block=(4, 1)), dense, 0)
    yield "2:4", np.where(nm_mask(np.abs(dense), 2, 4), dense, 0)
    yield "more than a tile", drawn(200, 130, 0.2, rng)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_slots_are_the_weight_and_every_step_reads_its_own(bits, rng):
    seen = set()
    for name, weight in weights(rng):
        formats, left_out = store(weight, Choice(value_bits=bits))
        assert len(formats) + len(left_out) == len(FORMATS) and formats[0].key == "dense"
        for each in formats:
            seen.add(each.key)
            where = f"{name}, {each.key}"
            found = np.zeros_like(weight)
            there = each.row >= 0
            np.add.at(found, (each.row[there], each.column[there]), each.value[there])
            np.testing.assert_array_equal(found, weight, err_msg=where)
            np.testing.assert_array_equal(np.sort(each.read), np.arange(len(each.value)), err_msg=where)
            assert each.value_edges[0] == 0 and each.value_edges[-1] == len(each.read), where
            assert np.all(np.diff(each.value_edges) >= 0) and np.all(np.diff(each.index_edges) >= 0), where
            assert len(each.index_edges) == len(each.value_edges) and each.index_edges[-1] <= len(each.index), where
            assert set(each.bits) == set(KINDS) and all(n >= 0 for n in each.bits.values()), where
            assert not each.value[~there].any(), where
            assert sum(len(each.slots(s)) for s in range(each.steps)) == len(each.value), where
    assert seen == {form.key for form in FORMATS} - ({"tiled_csl"} if bits != 16 else set())


def test_bits_by_hand(rng):
    weight = np.zeros((8, 16), np.float32)
    weight[:4, 3], weight[0, 5], weight[6, 9] = 1, 2, 3  # a whole block of 4 x 1, and two weights alone
    stored = {each.key: each for each in store(weight, Choice(value_bits=16, block=(4, 4)))[0]}
    nnz = 6
    assert stored["dense"].total_bits == 8 * 16 * 16
    assert stored["csr32"].total_bits == nnz * (16 + 32) + 32 * 9
    assert stored["csr16"].bits == {"values": 96, "indices": 96, "pointers": 288, PADDING: 0}
    assert stored["bitmap"].bits == {"values": 96, "indices": 128, "pointers": 0, PADDING: 0}
    assert stored["bsr"].bits == {"values": 96, "indices": 3 * 32, "pointers": 96, PADDING: (3 * 16 - nnz) * 16}
    # Three blocks of 4 x 1 in two groups of four: five blocks of zeros and six zeros in blocks that are kept.
    groups = stored["groups"]
    assert groups.bits == {"values": 96, "indices": 3 * 16, "pointers": 3 * 64, PADDING: 6 * 16 + 5 * (4 * 16 + 16)}
    assert groups.nbytes == sum(groups.bits.values()) // 8
    assert stored["tiled_csl"].bits == {"values": 96, "indices": 96, "pointers": 96, PADDING: 64}


@pytest.mark.parametrize("nm", [(2, 4), (1, 4), (2, 8)])
def test_n_of_m_holds_the_arrays_of_the_kernels_format(nm, rng):
    dense = drawn(24, 32, 1.1, rng)
    weight = np.where(nm_mask(np.abs(dense), *nm), dense, 0)
    weight[3] = 0  # places are filled with zeros
    held = NMPacked.from_dense(weight, *nm)
    stored = next(e for e in store(weight, Choice(value_bits=32, nm=nm))[0] if e.key == "nm")
    assert stored.value.tobytes() == held.values.tobytes()
    assert stored.index.astype(np.uint8).tobytes() == held.positions.tobytes()
    width = {4: 2, 8: 3}[nm[1]]  # the kernel keeps a place in a byte; counted is what it needs
    assert stored.total_bits == len(stored.value) * (32 + width)
    assert held.nbytes == len(stored.value) * 5


@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (100, 128), (256, 256)])
def test_tiles_of_other_sizes_are_stored_and_put_back(tile, rng):
    weight = drawn(200, 130, 0.2, rng)
    choice = Choice(value_bits=16, tile=tile, reorder=False)
    stored = next(e for e in store(weight, choice)[0] if e.key == "tiled_csl")
    found, there = np.zeros_like(weight), stored.row >= 0
    np.add.at(found, (stored.row[there], stored.column[there]), stored.value[there])
    np.testing.assert_array_equal(found, weight)
    held = TiledCSL.encode(weight, *tile, reorder=False, pad=True)
    assert stored.nbytes == held.nbytes and f"a tile of {tile[0]} x {tile[1]}" in stored.about
    tiles = -(-200 // tile[0]) * -(-130 // tile[1])
    assert stored.bits["pointers"] == 32 * (tiles + 2)
    assert stored.banks.fullest("plain").mean() == pytest.approx(held.bank_conflict_degree(), rel=1e-9)


@pytest.mark.parametrize(
    ("tile", "told"),
    [((128, 96), "a power of two of columns, at least 64, not 96"), ((8, 32), "at least 64, not 32"),
     ((512, 256), "a tile of 512 x 256 has more than the 65,536 places")],
)  # fmt: skip
def test_a_tile_that_words_cannot_name_is_left_out(tile, told, rng):
    stored, left_out = store(drawn(8, 8, 0.5, rng), Choice(value_bits=16, tile=tile))
    assert "tiled_csl" not in {each.key for each in stored} and any(told in each for each in left_out)


@pytest.mark.parametrize("reorder", [False, True])
def test_banks_are_those_that_the_format_counts(reorder, rng):
    weight = drawn(256, 128, 0.2, rng)
    stored = next(e for e in store(weight, Choice(value_bits=16, reorder=reorder))[0] if e.key == "tiled_csl")
    for order, dealt in (("plain", False), ("dealt", True)):
        degree = TiledCSL.encode(weight, reorder=dealt).bank_conflict_degree()
        assert stored.banks.fullest(order).mean() == pytest.approx(degree, rel=0.02)
    assert stored.banks.order == ("dealt" if reorder else "plain")
    assert stored.banks.fullest("dealt").mean() < stored.banks.fullest("plain").mean()
    assert np.all((stored.banks.shown >= -1) & (stored.banks.shown < 32))


def test_what_a_format_cannot_hold_is_said(rng):
    _, left_out = store(drawn(6, 10, 0.9, rng), Choice(value_bits=8, block=(4, 4), nm=(2, 4)))
    told = "\n".join(left_out)
    for words in ("6 x 10 is not made of whole 4 x 4 blocks", "whole 4 x 1 blocks", "10 columns are no multiple of 4",
                  "choose 16 bits a value"):  # fmt: skip
        assert words in told
    _, left_out = store(drawn(8, 8, 1.1, rng), Choice())
    assert any("some 4 neighbours keep 4 weights; choose the pattern 2:4" in each for each in left_out)
