"""Cells of SEA's estimate: which are kept and which keys they stand for, by hand and by plain loops."""

import math

import numpy as np
import pytest
import torch

from workbench.models.attention.sea_cells import (
    GROUPS,
    FlatCSR,
    cells_to_flat_csr,
    column_grid,
    column_of_key,
    expand_cells,
    flat_attention,
    flat_csr_to_dense,
    grouped_topk,
)


@pytest.mark.parametrize(
    ("length", "cells"),
    [
        (8, [0, 0, 1, 1, 2, 2, 3, 3]),
        (6, [0, 0, 1, 2, 2, 3]),  # the keys' middles lie at 1/3, 1, 5/3, 7/3, 3 and 11/3: on an edge the left cell
        (3, [0, 1, 3]),  # at 2/3, 2 and 10/3
        (1, [1]),  # at 2
        (0, []),
    ],
)
def test_keys_read_the_cell_that_holds_their_middle(length, cells):
    assert column_of_key(length, 4).tolist() == cells
    column, seen = column_grid(torch.tensor([length, 8]), 8, 4, causal=False)
    assert column[0, 0, :length].tolist() == cells and column[1, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert seen[0, 0].tolist() == [True] * length + [False] * (8 - length)


def cell_of(key, visible, width):
    return min(width - 1, max(0, math.floor((key + 0.5) * width / visible - 1e-4)))


def kept_by_the_paper(est, k, length, group, causal):
    """Cells of one sample (H, T, W): every group in turn, best first, of ties the first."""
    h, _, w = est.shape
    kept = np.zeros(est.shape, bool)
    rows, cells, heads = range(length), range(w), range(h)
    seen = [i + 1 if causal else length for i in rows]
    groups = {
        "query": [([(a, i, c) for c in cells], k * w / seen[i]) for a in heads for i in rows],
        "head": [([(a, i, c) for i in rows for c in cells], length * k * w / length) for a in heads],
        "batch": [([(a, i, c) for a in heads for i in rows for c in cells], length * h * k * w / length)],
        "causal_batch": [([(a, i, c) for a in heads for c in cells], h * k * w / seen[i]) for i in rows],
    }
    for members, budget in groups[group]:
        for at in sorted(members, key=lambda at: -est[at])[: max(1, round(budget))]:
            kept[at] = True
    return kept


@pytest.mark.parametrize(
    ("group", "causal"), [*((group, False) for group in GROUPS), ("query", True), ("causal_batch", True)]
)
@pytest.mark.parametrize("k", [1, 2.5, 40])
def test_groups_keep_their_best_cells_and_spend_their_budget(group, causal, k, rng):
    est = rng.integers(0, 9, (2, 3, 7, 4)).astype(np.float32)  # many ties
    lengths = [7, 5]
    found = grouped_topk(torch.from_numpy(est), k, torch.tensor(lengths), group, causal=causal).numpy()
    for sample, length in enumerate(lengths):
        assert (found[sample] == kept_by_the_paper(est[sample], k, length, group, causal)).all()


def test_a_group_keeps_one_cell_at_least_and_half_cells_round_to_even():
    est = torch.arange(4.0).expand(1, 1, 40, 4)
    for k, kept in ((1, 1), (15, 2), (16, 2), (24, 2), (25, 2), (26, 3)):  # k W / L = .1, 1.5, 1.6, 2.4, 2.5, 2.6
        cells = grouped_topk(est, k, torch.tensor([40]), "query")
        assert cells.sum(-1).tolist() == [[[kept] * 40]]


@pytest.mark.parametrize("causal", [False, True])
def test_cells_stretch_to_the_keys_that_read_them(causal, rng):
    lengths = [9, 6, 1]
    cells = rng.random((3, 2, 9, 4)) < 0.5
    for sample, length in enumerate(lengths):
        cells[sample, :, length:] = False
    wanted = np.zeros((3, 2, 9, 9), bool)
    for sample, length in enumerate(lengths):
        for h, i, j in np.ndindex(2, length, length):
            visible = i + 1 if causal else length
            wanted[sample, h, i, j] = j < visible and cells[sample, h, i, cell_of(j, visible, 4)]
    assert (expand_cells(torch.from_numpy(cells), torch.tensor(lengths), causal=causal).numpy() == wanted).all()
    flat = cells_to_flat_csr(cells, lengths, causal=causal)
    assert flat.keys.tolist() == [j for n in range(3) for i in range(9) for h in range(2)
                                  for j in np.flatnonzero(wanted[n, h, i])]  # fmt: skip
    assert np.diff(flat.indptr).tolist() == wanted.transpose(0, 2, 1, 3).sum(-1).ravel().tolist()
    assert (flat.row_nnz == wanted.sum((1, 3))).all()
    assert (flat_csr_to_dense(flat) == wanted).all()


def test_a_cap_thins_wide_cells_and_leaves_narrow_ones():
    cells = torch.ones(1, 1, 6, 2, dtype=torch.bool)
    flat = cells_to_flat_csr(cells, torch.tensor([6]), causal=True, cap=2)
    runs = np.split(flat.keys, flat.indptr[1:-1])
    # Row i sees keys 0..i, the first half of them (a middle key too) in cell 0; of three keys stay the second and last.
    assert [run.tolist() for run in runs] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [1, 2, 4, 5]]
    last = cells_to_flat_csr(cells[:, :, -1:].expand(1, 1, 6, 2), torch.tensor([6]), cap=1)
    assert last.keys.tolist() == [2, 5] * 6
    with pytest.raises(ValueError, match="cap must be at least 1, got 0"):
        cells_to_flat_csr(cells, torch.tensor([6]), cap=0)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_over_a_flat_pattern_and_its_gradients_are_those_of_the_formula(causal):
    """Against autograd of the dense formula in float64, and that against differences of it."""
    generator = torch.Generator().manual_seed(3)
    q, k, v, target = (torch.randn(2, 3, 9, 4, generator=generator, dtype=torch.float64) for _ in range(4))
    cells = torch.rand(2, 3, 9, 4, generator=generator) < 0.4  # some queries have none
    lengths = torch.tensor([9, 6])
    cells[1, :, 6:] = False
    flat = cells_to_flat_csr(cells, lengths, causal=causal)
    mask = torch.from_numpy(flat_csr_to_dense(flat))

    def dense(q, k, v):
        weights = (q @ k.mT / 2).exp() * mask
        return (weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)) @ v

    wanted = [x.requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(dense, wanted)
    (dense(*wanted) * target).sum().backward()
    found = [x.detach().float().requires_grad_() for x in (q, k, v)]
    probs, out = flat_attention(flat, *found)
    torch.testing.assert_close(out.double(), dense(q, k, v), atol=1e-6, rtol=1e-5)
    assert probs.nnz == mask.sum() and probs.sum() == pytest.approx(int(mask.any(-1).sum()), rel=1e-5)
    (out * target.float()).sum().backward()
    for ours, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.grad.double(), exact.grad, atol=1e-5, rtol=1e-4)


def test_one_sample_of_a_flat_pattern_has_all_heads_of_a_query_in_one_row():
    """Two samples of two tokens and two heads; runs in the order sample, query, head."""
    flat = FlatCSR(np.array([0, 1, 3, 3, 4, 5, 5, 6, 7]), np.array([0, 0, 1, 1, 1, 0, 1]), (2, 2, 2))
    assert flat.row_nnz.tolist() == [[3, 1], [1, 2]]
    assert flat.sample(0).toarray().tolist() == [[1, 0, 1, 1], [0, 0, 0, 1]]
    assert flat.sample(1).toarray().tolist() == [[0, 1, 0, 0], [1, 0, 0, 1]]
    assert flat_csr_to_dense(flat)[1].tolist() == [[[False, True], [True, False]], [[False, False], [False, True]]]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"group": "best"}, "group must be one of query, head, batch, causal_batch; got 'best'"),
        ({"k": 0}, "k must be positive, got 0"),
        ({"group": "head", "causal": True}, "group 'head' ranks later queries too"),
        ({"group": "batch", "causal": True}, "group 'batch' ranks later queries too"),
    ],
)
def test_bad_input_is_named(how, words):
    with pytest.raises(ValueError, match=words):
        grouped_topk(torch.zeros(1, 1, 2, 4), **({"k": 1, "lengths": torch.tensor([2])} | how))
