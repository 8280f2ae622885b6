"""SparseGPT against a loop that inverts H anew for every column, and against what must hold for any H."""

import numpy as np
import pytest

from kernels.masks.sparsegpt import sparsegpt_prune, sparsegpt_prune_reference
from kernels.masks.wanda import wanda_mask

HOW = [{"sparsity": 0.5}, {"sparsity": 0.3}, {"n": 2, "m": 4}, {"n": 1, "m": 2}]


def data(rng, rows=6, columns=12, samples=60):
    x = rng.standard_normal((samples, columns)) @ (np.eye(columns) + 0.3 * rng.standard_normal((columns, columns)))
    return rng.standard_normal((rows, columns)), x


def test_two_columns_by_hand():
    """H = [[2, 1], [1, 2]]: pruning w_0 moves w_1 by w_0 H_01 / H_11, and S = w_0^2 3 / 2 against w_1^2 2."""
    gram = np.array([[2.0, 1], [1, 2]])
    w = np.array([[1.0, 3.0], [3.0, 1.0], [3.2, 2.8]])
    new, mask = sparsegpt_prune(w, gram, n=1, m=2, block=2, damp=0, samples=2)
    assert mask.tolist() == [[False, True], [True, False], [False, True]]  # 15.36 < 15.68
    np.testing.assert_allclose(new, [[0, 3.5], [3, 0], [0, 4.4]], rtol=1e-14)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("block", [4, 8, 12, 128])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_loop_over_columns(how, block, dtype, rng, assert_close):
    w, x = data(rng)
    w = w.astype(dtype)
    new, mask = sparsegpt_prune(w, x.T @ x, **how, block=block, damp=0.02, samples=60)
    wanted, kept = sparsegpt_prune_reference(w, x.T @ x, **how, block=block, damp=0.02, samples=60)
    assert (mask == kept).all() and new.dtype == dtype
    assert_close(new, wanted.astype(dtype))
    assert (new[~mask] == 0).all()


def test_a_column_range_that_is_no_multiple_of_the_block(rng, assert_close):
    w, x = data(rng, 3, 11)
    new, mask = sparsegpt_prune(w, x.T @ x, 0.4, block=4)
    wanted, kept = sparsegpt_prune_reference(w, x.T @ x, 0.4, block=4)
    assert (mask == kept).all()
    assert_close(new, wanted)
    assert [mask[:, i : i + 4].sum() for i in (0, 4, 8)] == [12 - 5, 12 - 5, 9 - 4]


def test_with_a_diagonal_h_it_selects_by_w2_h_and_moves_nothing(rng):
    w, diagonal = rng.standard_normal((5, 8)), rng.random(8) + 0.5
    for how in ({"sparsity": 0.5}, {"n": 2, "m": 4}):
        new, mask = sparsegpt_prune(w, np.diag(diagonal), **how, damp=0)
        assert (new == np.where(mask, w, 0)).all()
    assert (mask == wanda_mask(w, diagonal, n=2, m=4)).all()
    mask = sparsegpt_prune(w, np.diag(diagonal), 0.5, damp=0)[1]
    assert mask.sum() == 20
    scores = w**2 * diagonal
    assert scores[mask].min() > scores[~mask].max()


def test_the_weights_that_stay_are_the_least_squares_answer_to_the_pruned_ones(rng, assert_close):
    _, x = data(rng, 1, 6)
    w = np.array([[0.3, -0.2, 4.0, -5.0, 4.5, 6.0]])
    new, mask = sparsegpt_prune(w, x.T @ x, 1 / 3, damp=0)
    assert mask.tolist() == [[False, False, True, True, True, True]]
    assert_close(new[0, 2:], np.linalg.lstsq(x[:, 2:], x @ w[0], rcond=None)[0])


def test_the_output_error_is_smaller_than_without_the_adjustment(rng):
    w, x = data(rng, 16, 32, 400)
    for how in HOW[:3]:
        new, mask = sparsegpt_prune(w, x.T @ x, **how)
        plain = np.where(mask, w, 0)
        assert np.linalg.norm(x @ (new - w).T) < 0.95 * np.linalg.norm(x @ (plain - w).T)


def test_an_input_that_is_always_zero_loses_its_weights(rng):
    w, x = data(rng)
    x[:, [0, 5]] = 0
    new, mask = sparsegpt_prune(w, x.T @ x, 0.25, samples=60)
    wanted, kept = sparsegpt_prune_reference(w, x.T @ x, 0.25, samples=60)
    assert not new[:, [0, 5]].any() and (mask == kept).all()
    np.testing.assert_allclose(new, wanted, rtol=1e-9, atol=1e-12)


def test_rows_that_go_together_share_their_mask(rng):
    w, x = data(rng, 8)
    for how in ({"sparsity": 0.5}, {"n": 2, "m": 4}):
        new, mask = sparsegpt_prune(w, x.T @ x, **how, block=4, together=4)
        tiles = mask.reshape(2, 4, 12)
        assert (tiles == tiles[:, :1]).all() and mask.mean() == 0.5
        assert (new[~mask] == 0).all()
    w[:, :4] = [[4, 0, 0, 3]] * 4 + [[0, 0, 1, 3]] * 4  # sums of squares per block: 64 0 0 36, 0 0 4 36
    mask = sparsegpt_prune(w, np.eye(12), 0.5, block=4, damp=0, together=4)[1]
    assert mask[::4, :4].astype(int).tolist() == [[1, 0, 0, 1], [0, 0, 1, 1]]


def test_operands_stay_as_they_are_and_threads_change_nothing(rng):
    w, x = data(rng, 40, 24)
    gram = x.T @ x
    before = w.copy(), gram.copy()
    found = [sparsegpt_prune(w, gram, 0.6, num_threads=t) for t in (1, 3)]
    assert (w == before[0]).all() and (gram == before[1]).all()
    assert (found[0][0] == found[1][0]).all() and (found[0][1] == found[1][1]).all()
    turned = sparsegpt_prune(np.asfortranarray(w), np.asfortranarray(gram), 0.6)
    assert (turned[1] == found[0][1]).all()


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_empty_matrices(shape):
    new, mask = sparsegpt_prune(np.empty(shape), np.eye(shape[1]), 0.5)
    assert new.shape == mask.shape == shape


def test_all_and_nothing(rng, assert_close):
    w, x = data(rng)
    new, mask = sparsegpt_prune(w, x.T @ x, 0.0)
    assert mask.all() and (new == w).all()
    new, mask = sparsegpt_prune(w, x.T @ x, n=4, m=4)
    assert mask.all() and (new == w).all()
    new, mask = sparsegpt_prune(w, x.T @ x, 1.0)
    assert not mask.any() and not new.any()


def test_bad_arguments_are_refused(rng):
    w, x = data(rng)
    gram = x.T @ x
    with pytest.raises(ValueError, match="give either sparsity or both n and m"):
        sparsegpt_prune(w, gram)
    with pytest.raises(ValueError, match="multiples of m=4, got block 6"):
        sparsegpt_prune(w, gram, n=2, m=4, block=6)
    with pytest.raises(ValueError, match="multiples of m=5"):
        sparsegpt_prune(w, gram, n=2, m=5)
    with pytest.raises(ValueError, match="together must divide the 6 rows of w, got 4"):
        sparsegpt_prune(w, gram, 0.5, together=4)
    with pytest.raises(ValueError, match=r"gram must be symmetric; pass \(gram \+ gram.T\) / 2"):
        sparsegpt_prune(w, gram + np.triu(np.ones_like(gram), 1), 0.5)
    with pytest.raises(ValueError, match="must be positive definite; raise damp"):
        sparsegpt_prune(w, np.ones((12, 12)), 0.5, damp=0)
    with pytest.raises(ValueError, match="must be positive definite"):
        sparsegpt_prune(w, -gram, 0.5)
    with pytest.raises(ValueError, match=r"got \(6, 12\) and \(11, 11\)"):
        sparsegpt_prune(w, gram[1:, 1:], 0.5)
    with pytest.raises(TypeError, match="gram must be a NumPy array of float64, got float32"):
        sparsegpt_prune(w, gram.astype(np.float32), 0.5)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="w and gram must be finite"):
            sparsegpt_prune(w * bad, gram, 0.5)
        with pytest.raises(ValueError, match="w and gram must be finite"):
            sparsegpt_prune(w, gram * bad, 0.5)
