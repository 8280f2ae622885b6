"""Codebooks that are learnt: codes and loss by hand, gradients against a loop, and steps of Lloyd's."""

import numpy as np
import pytest
import torch

from workbench.models.fine_tuning.product_quantizer import ProductQuantizer

BOOK = torch.tensor([[[0.0, 0], [1, 1], [-1, 1]], [[0, 1], [2, 0], [1, -1]]])
VECTORS = torch.tensor([[0.9, 0.8, 0.2, 0.7], [-0.6, 0.4, 1.4, -0.2], [0.1, -0.2, 1, -1]])


def made(metric="l1", dtype=torch.float32):
    quantizer = ProductQuantizer(2, 3, 2, metric, dtype=dtype)
    quantizer.codebook.data.copy_(BOOK)
    return quantizer


def test_codes_and_loss_worked_out_by_hand():
    quantizer = made()
    assert quantizer.encode(VECTORS).tolist() == [[1, 0], [0, 1], [0, 2]]
    assert float(quantizer.loss(VECTORS).detach()) == pytest.approx(0.213282, abs=1e-5)
    assert quantizer.decode(quantizer.encode(VECTORS)).tolist() == [[1, 1, 0, 1], [0, 0, 2, 0], [0, 0, 1, -1]]


def test_the_loss_and_its_gradients_equal_a_loop():
    quantizer, rng = ProductQuantizer(3, 5, 4, dtype=torch.float64), np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((7, 12))).requires_grad_()
    terms = []
    for i in range(7):
        for m in range(3):
            part, book = x[i, 4 * m : 4 * m + 4], quantizer.codebook[m]
            inverse = torch.stack([1 / (part - word).abs().sum() for word in book])
            mixed = sum(a * word for a, word in zip(inverse / inverse.sum(), book, strict=True))
            hard = book[int(inverse.argmax())]
            terms.append((mixed - hard).square().sum() + (part - hard).square().sum())
    wanted = sum(terms) / (7 * 12)
    want = torch.autograd.grad(wanted, (x, quantizer.codebook))
    loss = quantizer.loss(x)
    torch.testing.assert_close(loss, wanted)
    for one, other in zip(torch.autograd.grad(loss, (x, quantizer.codebook)), want, strict=True):
        torch.testing.assert_close(one, other)
        assert one.abs().max() > 0


def test_a_vector_on_its_codeword_has_a_finite_loss():
    quantizer = made()
    x = quantizer.decode(torch.tensor([[1, 2]])).detach().requires_grad_()
    loss = quantizer.loss(x)
    loss.backward()
    assert 0 <= float(loss) < 1e-8 and torch.isfinite(x.grad).all() and torch.isfinite(quantizer.codebook.grad).all()


def test_the_metric_names_other_codewords():
    quantizer = ProductQuantizer(1, 2, 2)
    quantizer.codebook.data.copy_(torch.tensor([[[3.0, 0], [2, 2]]]))
    x = torch.zeros(1, 2)
    assert quantizer.encode(x).tolist() == [[0]]  # 3 against 4
    quantizer.metric = "l2"
    assert quantizer.encode(x).tolist() == [[1]]  # 9 against 8


@pytest.mark.parametrize("metric", ["l1", "l2"])
def test_what_is_quantised_is_what_the_codes_stand_for(metric):
    torch.manual_seed(0)
    quantizer, x = ProductQuantizer(4, 16, 8, metric), torch.randn(2, 3, 5, 32)
    codes = quantizer.encode(x)
    assert codes.shape == (2, 3, 5, 4) and codes.dtype == torch.uint8
    found = quantizer.quantize(x)
    assert found.shape == x.shape and torch.equal(found, quantizer.decode(codes))
    gap = (x.view(-1, 4, 1, 8) - quantizer.codebook).abs()
    distance = gap.sum(-1) if metric == "l1" else gap.square().sum(-1)
    torch.testing.assert_close(distance.gather(2, codes.view(-1, 4, 1).long())[..., 0], distance.min(-1).values)


def test_steps_of_lloyd_bring_the_codewords_nearer():
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((3, 4, 2)) * 8
    picked = rng.integers(0, 4, (200, 3))
    x = np.concatenate([centres[m][picked[:, m]] for m in range(3)], 1) + 0.1 * rng.standard_normal((200, 6))
    x, errors = torch.from_numpy(x).float(), []
    for iters in (0, 1, 8):
        quantizer = ProductQuantizer(3, 4, 2).init_kmeans(x, iters, seed=3)
        errors.append(float((quantizer.quantize(x) - x).square().mean()))
    assert errors[1] < errors[0] and errors[2] <= errors[1]
    mean = x[:, :2][quantizer.encode(x)[:, 0] == 1].mean(0)
    torch.testing.assert_close(quantizer.codebook[0, 1].detach(), mean)  # settled: a codeword is the mean of its parts
    again = ProductQuantizer(3, 4, 2).init_kmeans(x, 8, seed=3)
    assert torch.equal(again.codebook, quantizer.codebook)


def test_a_codeword_that_none_names_stays():
    x = torch.tensor([[0.0], [0.0], [0.0], [5.0]])
    quantizer = ProductQuantizer(1, 3, 1).init_kmeans(x, 2)
    assert torch.isfinite(quantizer.codebook).all() and set(quantizer.codebook.flatten().tolist()) <= {0.0, 5.0}


def test_what_does_not_fit_is_refused():
    quantizer = made()
    for codes in (torch.tensor([[0, 3]]), torch.tensor([[-1, 0]])):
        with pytest.raises(ValueError, match=r"codes must lie in \[0, 3\)"):
            quantizer.decode(codes)
    with pytest.raises(ValueError, match=r"c must be \(\.\.\., 2\)"):
        quantizer.decode(torch.zeros(2, 3, dtype=torch.long))
    for bad in (torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool), [[0, 1]]):
        with pytest.raises(TypeError, match="c must hold integers"):
            quantizer.decode(bad)
    for call in (quantizer.encode, quantizer.loss, quantizer.init_kmeans):
        with pytest.raises(ValueError, match=r"x must be \(\.\.\., 4\), 2 parts of 2; got \(3, 5\)"):
            call(torch.zeros(3, 5))
    for metric in ("l1", "l2"):
        quantizer.metric = metric
        with pytest.raises(ValueError, match="x must be finite"):
            quantizer.encode(torch.full((1, 4), torch.nan))
    with pytest.raises(ValueError, match="x holds 2 vectors, 3 codewords need as many"):
        quantizer.init_kmeans(torch.zeros(2, 4))
    for how, told in (((0,), "n_subspaces"), ((2, 257), "n_codewords"), ((2, 16, 0), "d_codeword")):
        with pytest.raises(ValueError, match=told):
            ProductQuantizer(*how)
    with pytest.raises(ValueError, match="metric must be one of l1, l2"):
        ProductQuantizer(2, metric="cosine")
