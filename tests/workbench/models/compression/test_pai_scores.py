"""Scores and masks at initialisation: conservation, closed forms by autograd on masks, exact counts, refusals."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.compression.crop_networks import ResNetSpec
from workbench.models.compression.pai_scores import (
    METHODS,
    layerwise_density,
    masked,
    pai_masks,
    pai_scores,
    random_masks,
    shuffle_masks,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ResNetSpec(streams=(4, 6), inner=(4, 6), strides=(1, 2))


def chain(seed=0, widths=(5, 7, 6, 3)):
    torch.manual_seed(seed)
    pairs = pairwise(widths)
    return nn.Sequential(*(part for a, b in pairs for part in (nn.Linear(a, b, bias=False), nn.ReLU())))[:-1].double()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(12, 1, 8, 8, generator=generator), torch.arange(12) % 10)]


def test_synaptic_flow_is_conserved_and_is_the_product_of_absolute_weights():
    model = chain()
    scores = pai_scores(model, "synflow", input_shape=(5,))
    flow = torch.ones(5, dtype=torch.float64)
    for layer in model[::2]:
        flow = layer.weight.detach().abs() @ flow
    for score in scores.values():
        assert float(score.sum()) == pytest.approx(float(flow.sum()), rel=1e-10)
    a, b, c = (layer.weight.detach().abs() for layer in model[::2])
    want = c.sum(0)[:, None] * b * a.sum(1)  # paths through each weight of the middle
    torch.testing.assert_close(scores["2"], want, rtol=1e-12, atol=0)


def test_synaptic_flow_does_not_change_when_layers_are_rescaled():
    model = chain()
    before = pai_scores(model, input_shape=(5,))
    with torch.no_grad():
        model[0].weight.mul_(-8.0)
        model[2].weight.div_(8.0)
    for name, score in pai_scores(model, input_shape=(5,)).items():
        torch.testing.assert_close(score, before[name], rtol=1e-12, atol=0)


def test_absolute_values_are_taken_of_buffers_and_biases_too():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
        model[0].bias.copy_(torch.tensor([-1.0, 1.0]))
        model[1].weight.copy_(torch.tensor([-1.0, 1.0]))
        model[1].running_mean.copy_(torch.tensor([-0.5, 0.5]))
        model[2].weight.copy_(torch.tensor([3.0, -1.0]).view(1, 2, 1, 1))
    scores = pai_scores(model, "synflow", input_shape=(1, 2, 2))
    scale = 4 / math.sqrt(1 + 1e-5)  # 4 pixels; the variance is 1
    assert scores["0"].flatten().tolist() == pytest.approx([3 * scale, 2 * scale])
    assert scores["2"].flatten().tolist() == pytest.approx([3 * scale * 1.5, 1 * scale * 2.5])


def test_caps_are_lifted_for_synaptic_flow_alone():
    capped, plain = (
        nn.Sequential(nn.Linear(4, 9), kind(), nn.Linear(9, 9), kind(), nn.Linear(9, 2)) for kind in (nn.ReLU6, nn.ReLU)
    )
    with torch.no_grad():
        for p in capped.parameters():
            p.mul_(50)
    plain.load_state_dict(capped.state_dict())
    scores, want = pai_scores(capped, input_shape=(4,)), pai_scores(plain, input_shape=(4,))
    assert all(torch.equal(scores[name], score) and bool((score > 0).all()) for name, score in want.items())
    assert isinstance(capped[1], nn.ReLU6)
    loader = [(torch.ones(3, 4), torch.tensor([0, 1, 1]))]
    assert not torch.equal(pai_scores(capped, "snip", loader)["0"], pai_scores(plain, "snip", loader)["0"])


def test_snip_is_the_gradient_on_the_mask(batch):
    model = SMALL.build(3)
    scores = pai_scores(model, "snip", batch)
    copied = SMALL.build(3).double().eval()
    layers = {n: m for n, m in copied.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    masks = {n: torch.ones_like(m.weight, requires_grad=True) for n, m in layers.items()}
    weights = {f"{n}.weight": layers[n].weight * mask for n, mask in masks.items()}
    x, y = batch[0]
    F.cross_entropy(torch.func.functional_call(copied, weights, (x.double(),)), y).backward()
    total = sum(float(mask.grad.abs().sum()) for mask in masks.values())
    for name, mask in masks.items():
        torch.testing.assert_close(scores[name], mask.grad.abs() / total, rtol=1e-9, atol=1e-15)
    assert sum(float(s.sum()) for s in scores.values()) == pytest.approx(1.0)


def test_grasp_is_the_hessian_times_the_gradient_times_the_weight():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)).double()
    x, y = torch.randn(8, 3, 1, 1, dtype=torch.float64), torch.arange(8) % 2

    def loss(weight):
        return F.cross_entropy(x.flatten(1) @ weight.view(2, 3).T / 200, y)

    w = model[1].weight.detach().flatten().requires_grad_()
    gradient = torch.autograd.functional.jacobian(loss, w)
    want = torch.autograd.functional.hessian(loss, w) @ gradient * w.detach()
    want = want / (want.sum().abs() + 1e-10)
    got = pai_scores(model, "grasp", [(x, y)])["1"].flatten()
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-12)


def test_magnitude_and_random(batch):
    model = SMALL.build(0)
    assert torch.equal(pai_scores(model, "magnitude")["stem"], model.stem.weight.detach().double().abs())
    once, again, other = (pai_scores(model, "random", seed=seed)["stem"] for seed in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_is(method, batch):
    model = SMALL.build(0)
    model.norm.eval()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    pai_masks(model, method, 0.3, 3, loader=batch)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert model.training and not model.norm.training and model.stem.weight.grad is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("density", (1.0, 0.37, 0.05))
def test_as_many_weights_stay_as_asked_for(method, density, batch):
    masks = pai_masks(SMALL.build(0), method, density, 4, loader=batch)
    size = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == size - int((1 - density) * size + 1e-9)


def test_a_mask_keeps_the_highest_scores_of_all_layers():
    model = chain()
    scores, masks = pai_scores(model, "magnitude"), pai_masks(model, "magnitude", 0.4)
    lowest_kept = min(float(s[masks[n]].min()) for n, s in scores.items())
    assert lowest_kept > max(float(s[~masks[n]].max()) for n, s in scores.items())
    per_layer = pai_masks(model, "magnitude", 0.4, scope="layer")
    assert {n: int(m.sum()) for n, m in per_layer.items()} == {"0": 14, "2": 17, "4": 8}  # of 35, 42, 18


def test_rounds_score_the_masked_net_and_never_bring_a_weight_back():
    model = chain(widths=(5, 40, 40, 3))
    first = pai_masks(model, "synflow", 0.25, 2, "exponential", input_shape=(5,))
    half = pai_masks(model, "synflow", 0.5, 1, input_shape=(5,))
    assert all(bool((mask <= half[name]).all()) for name, mask in first.items())
    again = pai_scores(masked(model, half), "synflow", input_shape=(5,))
    flat = torch.cat([s.flatten() for s in again.values()])
    size = flat.numel()
    threshold = flat.sort(descending=True).values[size - int(0.75 * size) - 1]
    assert all(torch.equal(first[name], score >= threshold) for name, score in again.items())
    linear = pai_masks(model, "synflow", 0.25, 2, "linear", input_shape=(5,))
    assert any(not torch.equal(linear[name], mask) for name, mask in first.items())


def test_one_round_empties_layers_and_a_hundred_do_not():
    model = ResNetSpec().build(1)
    once, often = (pai_masks(model, "synflow", 0.01, n, input_shape=(1, 8, 8)) for n in (1, 100))
    assert sum(density == 0 for density in layerwise_density(once).values()) >= 3
    assert min(layerwise_density(often).values()) > 0


def test_shuffled_and_random_masks_keep_the_counts_of_layers():
    model = SMALL.build(0)
    masks = pai_masks(model, "magnitude", 0.2)
    shuffled = shuffle_masks(masks, 1)
    assert {n: int(m.sum()) for n, m in shuffled.items()} == {n: int(m.sum()) for n, m in masks.items()}
    assert any(not torch.equal(m, masks[n]) for n, m in shuffled.items())
    assert all(torch.equal(m, shuffle_masks(masks, 1)[n]) for n, m in shuffled.items())
    drawn = random_masks(model, layerwise_density(masks), 4)
    assert {n: int(m.sum()) for n, m in drawn.items()} == {n: int(m.sum()) for n, m in masks.items()}
    assert all(int(m.sum()) == round(0.5 * m.numel()) for m in random_masks(model, 0.5).values())


@pytest.mark.parametrize("density", (0, -0.1, 1.5, math.nan))
def test_densities_outside_are_refused(density):
    with pytest.raises(ValueError, match="density"):
        pai_masks(chain(), "magnitude", density)


def test_other_bad_inputs_are_refused(batch):
    model = chain()
    with pytest.raises(ValueError, match="synflow"):
        pai_scores(model, "sinflow")
    with pytest.raises(ValueError, match="loader"):
        pai_scores(model, "snip")
    with pytest.raises(ValueError, match="input_shape"):
        pai_scores(model, "synflow")
    with pytest.raises(ValueError, match="Conv2d or Linear"):
        pai_scores(nn.ReLU(), "magnitude")
    with pytest.raises(ValueError, match="rounds"):
        pai_masks(model, "magnitude", 0.5, 0)
    with pytest.raises(KeyError, match="no layer 2"):
        random_masks(model, {"0": 0.5, "4": 0.5})
    with pytest.raises(ValueError, match="densities"):
        random_masks(model, 1.5)
    with pytest.raises(KeyError, match="no layer 7"):
        masked(model, {"7": torch.ones(1)})


def test_overflow_is_told_with_its_cure():
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(30)))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(1.0)
    with pytest.raises(ArithmeticError, match="float64"):
        pai_scores(model, "synflow", input_shape=(64,), dtype=torch.float32)
    assert np.isfinite(float(pai_scores(model, "synflow", input_shape=(64,))["0"].sum()))
