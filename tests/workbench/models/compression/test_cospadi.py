"""CoSpaDi against the SVD where they are one, against identities, and on a model of a reader's own."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from kernels.factor.ksvd import ksvd
from kernels.factor.svd import rank_for_ratio, svd_llm, svd_plain
from kernels.factor.whitening import whiten
from workbench.models.compression.cospadi import (
    cospadi,
    cospadi_compress,
    cospadi_compress_group,
    dictionary_factors,
    solve_k_s,
    trace,
)
from workbench.models.compression.dictionary_linear import SparseDictLinear
from workbench.models.sparse_inference.statistics import gather_statistics, relative_output_error

pytestmark = pytest.mark.usefixtures("one_thread", "one_blas_thread")


@pytest.fixture(scope="module")
def one_blas_thread():
    """Let BLAS use one thread: in matrices as small as these the others spin, and their CPU time counts."""
    with threadpool_limits(1, user_api="blas"):
        yield


def inputs(rng, tokens=200, n=24):
    return rng.standard_normal((tokens, n)) @ (np.eye(n) + 0.3 * rng.standard_normal((n, n)))


@pytest.mark.parametrize(
    ("given", "wanted", "rank"),
    [
        ((0.2, 2048, 2048), (1092, 546), 819),
        ((0.2, 2048, 2048, 4), (2184, 1092), 819),
        ((0.3, 4096, 14336), (3649, 1824), 2230),
        ((0.5, 384, 1536), (256, 128), 153),
        ((0.2, 384, 384), (204, 102), 153),
    ],
)
def test_sizes_of_the_examples(given, wanted, rank):
    assert solve_k_s(*given) == wanted
    assert rank_for_ratio(given[0], (given[2], given[1])) == rank
    k, s = wanted
    d1, outputs = given[1], given[2] * (given[3] if len(given) > 3 else 1)
    kept = (d1 * k + s * outputs) / (d1 * outputs)
    assert 0 <= (1 - given[0]) - kept <= 2 / given[1]


def test_sizes_with_the_mask_paid_from_the_budget():
    assert solve_k_s(0.4375, 384, 384, count_mask=True) == (138, 69)
    k, s = solve_k_s(0.5, 384, 1536, 1, 2.5, count_mask=True)
    assert 16 * (384 * k + s * 1536) + 1536 * k <= 8 * 384 * 1536 and k // s == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cr": 0.0}, "cr must be a finite number above 0"),
        ({"cr": 1.0}, "cr must be a number above 0 and below 1"),
        ({"rho": 0.9}, "rho must be a finite number of at least 1"),
        ({"cr": 0.99, "d1": 8, "d2": 8}, "leaves k=0 atoms and s=0"),
        ({"rho": 300.0}, "s=0 of them"),
        ({"n_layers": 0}, "n_layers must be an int of at least 1"),
    ],
)
def test_sizes_out_of_range(change, told):
    with pytest.raises(ValueError, match=f"solve_k_s: .*{told}"):
        solve_k_s(**({"cr": 0.5, "d1": 64, "d2": 64} | change))


def test_the_error_of_the_outputs_is_that_of_the_whitened_weights(rng):
    x, w = inputs(rng), rng.standard_normal((30, 24))
    found = dictionary_factors([w], x.T @ x, 14, 7, iters=3, precision=np.float64)
    left = w - found.weights()[0]
    error = np.linalg.norm(x @ left.T)
    np.testing.assert_allclose(np.linalg.norm(whiten(x.T @ x).factor @ left.T), error, rtol=1e-9)
    np.testing.assert_allclose(found.history[found.best], error / np.linalg.norm(x @ w.T), rtol=1e-9)
    np.testing.assert_allclose(relative_output_error(w, found.weights()[0], x.T @ x), found.history.min(), rtol=1e-6)


def test_with_as_many_coefficients_as_atoms_it_is_svd_llm(rng):
    x, w = inputs(rng), rng.standard_normal((30, 24))
    gram = x.T @ x
    found = dictionary_factors([w], gram, 9, 9, iters=0, precision=np.float64)
    low = svd_llm(w, gram, 9)
    np.testing.assert_allclose(found.weights()[0], low.left @ low.right, atol=1e-9)
    np.testing.assert_allclose(found.history[0] * np.linalg.norm(x @ w.T), low.left_out, rtol=1e-9)
    plain, same = svd_plain(w, 9), dictionary_factors([w], None, 9, 9, iters=0, precision=np.float64)
    np.testing.assert_allclose(same.weights()[0], plain.left @ plain.right, atol=1e-9)


def test_with_inputs_alike_in_all_directions_it_compresses_the_weights(rng):
    w = rng.standard_normal((30, 24))
    one, other = (dictionary_factors([w], gram, 12, 4, iters=2, precision=np.float64) for gram in (np.eye(24), None))
    np.testing.assert_allclose(one.weights()[0], other.weights()[0], atol=1e-9)
    direct = ksvd(np.ascontiguousarray(w.T), 12, 4, iters=2)
    np.testing.assert_allclose(one.weights()[0].T, direct.dictionary @ direct.codes.as_csr().T, atol=1e-9)


def test_sparse_codes_beat_one_subspace_at_equal_values(rng):
    """Weights made of two subspaces: the error falls below that of SVD-LLM with as many values."""
    x, bases = inputs(rng), rng.standard_normal((2, 24, 6))
    w = np.concatenate([(basis @ rng.standard_normal((6, 40))).T for basis in bases]) + 0.05 * rng.standard_normal(
        (80, 24)
    )
    shown = trace(w, x.T @ x, 0.6, iters=5)
    assert shown["history"].min() < 0.8 * shown["svd_error"]
    plain = trace(w, None, 0.6, iters=5)
    outputs = [np.linalg.norm(x @ (w - each["approximation"]).T) for each in (shown, plain)]
    weights = [np.linalg.norm(w - each["approximation"]) for each in (shown, plain)]
    assert outputs[0] < outputs[1] and weights[0] > weights[1]


def test_a_trace_holds_plain_arrays_that_fit(rng):
    x, w = inputs(rng), rng.standard_normal((30, 24)).astype(np.float32)
    shown = trace(torch.from_numpy(w), x.T @ x, 0.4, iters=2)
    k, s = solve_k_s(0.4, 24, 30)
    assert (shown["k"], shown["s"], shown["rank"]) == (k, s, rank_for_ratio(0.4, (30, 24)))
    np.testing.assert_allclose((shown["dictionary"] @ shown["coefficients"]).T, shown["approximation"], atol=1e-9)
    assert (np.count_nonzero(shown["coefficients"], axis=0) == s).all() and shown["uses"].sum() == 30 * s
    np.testing.assert_allclose(np.linalg.norm(shown["residual_spectrum"]) / np.linalg.norm(shown["spectrum"]),
                               shown["history"][shown["best"]], rtol=1e-5)  # fmt: skip
    low = svd_llm(w, x.T @ x, shown["rank"])
    np.testing.assert_allclose(shown["svd_error"] * np.linalg.norm(low.values), low.left_out, rtol=1e-5)


def test_a_layer_computes_what_its_dense_form_does(rng, assert_close):
    x, w = inputs(rng), torch.randn(30, 24, generator=torch.Generator().manual_seed(1))
    bias = torch.arange(30.0)
    layer = cospadi_compress(w, x.T @ x, 0.3, iters=2, bias=bias)
    given = torch.randn(3, 5, 24)
    out = layer(given)
    assert out.shape == (3, 5, 30) and out.dtype == torch.float32
    assert_close(out.numpy(), (given @ layer.to_dense().T + bias).numpy())
    k, s = solve_k_s(0.3, 24, 30)
    assert layer.dictionary.shape == (k, 24) and layer.indices.shape == (30, s) and layer.s == s
    assert layer.indices.dtype == torch.int16 and (layer.indices[:, 1:] > layer.indices[:, :-1]).all()
    assert layer.stored_bits() == 16 * (24 * k + s * 30) + 30 * min(k, s * (k - 1).bit_length())
    assert layer(given.double()).dtype == torch.float64 and layer(given[0, :0]).shape == (0, 30)
    with pytest.raises(ValueError, match="x must have 24 features"):
        layer(given[..., :3])
    again = cospadi_compress(w, x.T @ x, 0.3, iters=2, bias=bias)
    assert torch.equal(again.values, layer.values)


def test_a_group_shares_one_dictionary(rng, assert_close):
    x, parts = inputs(rng), [torch.randn(20, 24, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    gram = x.T @ x
    layers = cospadi_compress_group(parts, [gram] * 3, 0.4, iters=2)
    assert len({layer.dictionary.data_ptr() for layer in layers}) == 1
    k, s = solve_k_s(0.4, 24, 20, 3)
    whole = dictionary_factors([np.concatenate([p.numpy() for p in parts])], 3 * gram, k, s, iters=2)
    together = whole.weights()[0].reshape(3, 20, 24)
    for layer, wanted in zip(layers, together, strict=True):
        np.testing.assert_allclose(layer.to_dense().numpy(), wanted, atol=1e-4)
    assert layers[0].stored_bits(layers=3) == 16 * (24 * k + 60 * s) + 60 * min(k, s * (k - 1).bit_length())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.blocks = nn.ModuleList(nn.ModuleDict({n: nn.Linear(16, 16) for n in "qkvo"}) for _ in range(2))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        for block in self.blocks:
            x = x + block["o"](torch.tanh(block["q"](x)) * block["k"](x) + block["v"](x))
        return self.head(x)


def test_a_model_of_ones_own_is_compressed_by_one_call():
    model = Net().eval().requires_grad_(False)
    batches = [torch.randn(6, 8, 16, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    before, told = model(batches[0]), []
    small = cospadi(model, batches, 0.25, iters=2, groups=[("blocks.0.q", "blocks.0.k", "blocks.0.v")],
                    report=lambda *say: told.append(say))  # fmt: skip
    made = {name: layer for name, layer in small.named_modules() if isinstance(layer, SparseDictLinear)}
    assert len(made) == 8 and isinstance(small.head, nn.Linear) and torch.equal(model(batches[0]), before)
    shared = [made[f"blocks.0.{n}"].dictionary.data_ptr() for n in "qkv"]
    assert len(set(shared)) == 1 and made["blocks.1.q"].dictionary.data_ptr() not in shared
    assert (small(batches[0]) - before).norm() < 0.35 * before.norm()
    assert [f for f, _ in told] == sorted(f for f, _ in told) and "blocks.0.q, blocks.0.k" in told[1][1]
    known = gather_statistics(model, batches)["blocks.1.o"].gram
    alone = cospadi_compress(model.blocks[1]["o"].weight, known, 0.25, iters=2)
    assert torch.equal(alone.values, made["blocks.1.o"].values)
    with pytest.raises(ValueError, match=r"'blocks\.0\.q' is named twice"):
        cospadi(model, batches, groups=[("blocks.0.q", "blocks.0.k"), ("blocks.0.q",)])
    with pytest.raises(KeyError, match="no linear layer"):
        cospadi(model, batches, layers=["nothing"])


def test_a_singular_gram_matrix_is_told_and_no_fault(rng):
    x, w = inputs(rng, 10), rng.standard_normal((30, 24)).astype(np.float32)
    x[:, 3] = 0
    with pytest.warns(UserWarning, match="whiten: gram is singular"):
        layer = cospadi_compress(w, x.T @ x, 0.5, iters=1)
    assert torch.isfinite(layer.dictionary).all()
    with pytest.warns(UserWarning):
        assert dictionary_factors([w], x.T @ x, 8, 4, iters=0).jitter > 0


@pytest.mark.parametrize(
    ("weight", "gram", "told"),
    [
        (np.full((4, 6), np.nan), np.eye(6), "w must be finite"),
        (np.ones((4, 6)), np.eye(5), "gram must be 6 x 6"),
        (np.ones(4), np.eye(4), "w must be"),
        (np.ones((4, 6)), np.full((6, 6), np.inf), "gram must be finite"),
    ],
)
def test_bad_matrices(weight, gram, told):
    with pytest.raises(ValueError, match=told):
        cospadi_compress(weight, gram, 0.2)


def test_bad_groups_and_precisions():
    with pytest.raises(ValueError, match="matrices of one shape"):
        cospadi_compress_group([np.ones((4, 6)), np.ones((5, 6))], [None, None], 0.2)
    with pytest.raises(ValueError, match="grams must be one for each of the 2 weights"):
        cospadi_compress_group([np.ones((4, 6))] * 2, [None], 0.2)
    with pytest.raises(ValueError, match="precision must be"):
        dictionary_factors([np.ones((4, 6))], None, 2, 1, precision=np.float16)
    with pytest.raises(ValueError, match="at least one matrix"):
        dictionary_factors([], None, 2, 1)
    with pytest.raises(ValueError, match="ksvd: s must be an int from 1 to 2"):
        dictionary_factors([np.ones((4, 6))], None, 2, 3)
