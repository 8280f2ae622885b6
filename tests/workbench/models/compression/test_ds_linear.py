"""Dense-sparse layers: gradients as they are defined, what each mode trains, and a model in one call."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.compression.ds_linear import MODES, DSLinear, StraightThroughFactorizer, dsformer
from workbench.models.compression.ds_training import ds_layers, finetune, stf_finetune
from workbench.models.compression.dsformer import DSBlockSpec, ds_factorize

pytestmark = pytest.mark.usefixtures("one_thread")
SPEC = DSBlockSpec(block_cols=8, atoms=6, nnz_per_row=2)


@pytest.fixture
def weight():
    return torch.randn(12, 16, generator=torch.Generator().manual_seed(0))


def made(weight, mode, bias=None):
    return DSLinear(ds_factorize(weight, SPEC), bias, mode, weight if mode == "stf" else None)


def test_the_gradient_passes_straight_to_the_dense_matrix(weight):
    layer, x = made(weight, "stf"), torch.randn(5, 16)
    approximation = layer.weight_now().detach().requires_grad_()
    assert torch.allclose(approximation, layer.to_dense(), atol=1e-6)
    layer(x).square().sum().backward()
    F.linear(x, approximation).square().sum().backward()
    assert torch.equal(layer.latent.grad, approximation.grad)
    assert [name for name, _ in layer.named_parameters()] == ["latent"]
    latent, other = weight.clone().requires_grad_(), torch.zeros_like(weight).requires_grad_()
    given = torch.randn_like(weight)
    StraightThroughFactorizer.apply(latent, other).backward(given)
    assert torch.equal(latent.grad, given) and other.grad is None


def test_frozen_places_have_the_gradients_of_the_product(weight):
    layer = made(weight, "frozen").double()
    given = torch.randn(12, 16, dtype=torch.float64)
    (layer.weight_now() * given).sum().backward()
    places = layer.places()
    whole = torch.zeros(1, 2, 12, 6, dtype=torch.float64).scatter(3, layer.idx.long(), layer.val.detach())
    for q in range(2):
        part = given[:, 8 * q : 8 * q + 8]
        assert torch.allclose(layer.D.grad[0, q], whole[0, q].T @ part)
        wanted = (part @ layer.D.detach()[0, q].T)[places[0, q]]
        assert torch.allclose(layer.val.grad[0, q].reshape(-1), wanted)


def test_dense_coefficients_all_get_the_gradient_and_the_largest_count(weight):
    layer = made(weight, "stf_coef")
    with torch.no_grad():
        layer.val.copy_(torch.randn_like(layer.val))
    given = torch.randn(12, 16)
    (layer.weight_now() * given).sum().backward()
    for q in range(2):
        z, part = layer.val.detach()[0, q], given[:, 8 * q : 8 * q + 8]
        least = z.abs().sort(dim=1).values[:, -2:-1]
        kept = torch.where(z.abs() >= least, z, 0.0)
        assert torch.allclose(layer.weight_now()[:, 8 * q : 8 * q + 8], kept @ layer.D[0, q], atol=1e-6)
        assert torch.allclose(layer.val.grad[0, q], part @ layer.D.detach()[0, q].T, atol=1e-5)
        assert torch.allclose(layer.D.grad[0, q], kept.T @ part, atol=1e-5)


def test_a_new_factorisation_starts_where_the_last_one_ended(weight):
    layer = made(weight, "stf")
    before = torch.linalg.norm(layer.to_dense() - weight)
    assert layer.refactor() <= 0.25
    assert torch.linalg.norm(layer.to_dense() - weight) <= before + 1e-5
    with torch.no_grad():
        layer.latent.copy_(torch.randn(12, 16))
    assert layer.refactor(sweeps=4) > 0.1
    assert torch.linalg.norm(layer.to_dense() - layer.latent) < 0.8 * torch.linalg.norm(layer.latent)
    with pytest.raises(ValueError, match="needs mode 'stf', the layer is in 'frozen'"):
        made(weight, "frozen").refactor()


@pytest.mark.parametrize("mode", MODES)
def test_a_finished_layer_gives_the_same_on_kernels(weight, mode, assert_close):
    bias = torch.randn(12)
    layer = made(weight, mode, bias)
    x = torch.randn(2, 3, 16)
    wanted = layer(x).detach()
    done = layer.finalize()
    assert_close(done(x).numpy(), wanted.numpy())
    assert done.packed is not None and not any(p.requires_grad for p in done.parameters())
    assert done(x.double()).dtype == torch.float64 and done(x[:0]).shape == (0, 3, 12)
    assert copy.deepcopy(done)(x).equal(done(x))
    with pytest.raises(ValueError, match="must have 16 features"):
        done(x[..., 1:])


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))


def test_a_model_in_one_call(assert_close):
    dense, x = net(), torch.randn(7, 16)
    before = copy.deepcopy(dense.state_dict())
    small = dsformer(dense, spec=SPEC)
    assert all(torch.equal(before[k], v) for k, v in dense.state_dict().items())
    assert isinstance(small[0], DSLinear) and isinstance(small[2], DSLinear)
    with torch.no_grad():
        rebuilt = copy.deepcopy(dense)
        for at in (0, 2):
            rebuilt[at].weight.copy_(small[at].to_dense())
        assert_close(small(x).numpy(), rebuilt(x).numpy())
    part = dsformer(dense, 1.5, layers=["0"], block_cols=8, rho=2)
    assert part[0].packed.num_values() * 1.5 <= 24 * 16 and isinstance(part[2], nn.Linear)
    with pytest.raises(KeyError, match="no linear layer"):
        dsformer(dense, layers=["9"])
    with pytest.raises(ValueError, match="mode"):
        dsformer(dense, mode="sft")


def test_replacing_in_place_gives_what_the_copy_is_or_leaves_the_model_alone():
    dense, x = net(), torch.randn(7, 16)
    copied = dsformer(dense, spec=SPEC, layers=["0"])
    with pytest.raises(ValueError, match="which do not divide the 24 columns"):  # of the second layer
        DSLinear.replace(dense, spec=DSBlockSpec(block_cols=16, atoms=6, nnz_per_row=2))
    assert isinstance(dense[0], nn.Linear) and isinstance(dense[2], nn.Linear)
    given = dense[2]
    assert DSLinear.replace(dense, spec=SPEC, layers=["0"]) is dense
    assert dense[0].packed is not None and dense[2] is given and dense.training
    assert torch.equal(dense(x), copied(x))
    assert DSLinear.replace(net(), 1.5, mode="stf", block_cols=8, rho=2, layers=["0"])[0].mode == "stf"


@pytest.mark.parametrize("mode", MODES)
def test_layers_that_blocks_do_not_divide_are_filled_up(mode, assert_close):
    """11 x 13 in blocks of 4 x 8 is 12 x 16: what lies outside is never seen, and gets no gradient."""
    weight, x = torch.randn(11, 13, generator=torch.Generator().manual_seed(2)), torch.randn(5, 13)
    spec = DSBlockSpec(block_rows=4, block_cols=8, atoms=6, nnz_per_row=3)
    with pytest.raises(ValueError, match="pad=True"):
        ds_factorize(weight, spec)
    layer = DSLinear(ds_factorize(weight, spec, pad=True), torch.randn(11), mode, weight)
    assert (layer.out_features, layer.in_features) == (11, 13) and layer.weight_now().shape == (11, 13)
    assert_close(layer.weight_now().detach().numpy(), layer.to_dense().numpy())
    out = layer(x)
    assert_close(out.detach().numpy(), (x @ layer.to_dense().T + layer.bias).detach().numpy())
    assert_close(layer.finalize()(x).numpy(), out.detach().numpy())
    assert_close(layer.finalize()(x[0]).numpy(), out[0].detach().numpy())
    out.square().sum().backward()
    if mode == "stf":
        approximation = layer.to_dense().requires_grad_()
        F.linear(x, approximation, layer.bias.detach()).square().sum().backward()
        assert_close(layer.latent.grad.numpy(), approximation.grad.numpy())
        assert layer.refactor() <= 0.5 and layer.to_dense().shape == (11, 13)
    else:
        assert not layer.val.grad[2, :, 3].any() and layer.val.grad[2, :, 2].any()  # row 11 is padding
        assert not layer.D.grad[:, 1, :, 5:].any() and layer.D.grad[:, 1, :, :5].any()  # so are columns 13 to 15


def test_a_padded_model_in_one_call_and_its_training():
    dense = nn.Sequential(nn.Linear(13, 11), nn.ReLU(), nn.Linear(11, 3))
    x = torch.randn(6, 13)
    small = dsformer(dense, 1.2, block_cols=4, rho=1.5, pad=True, layers=["0"])
    assert small(x).shape == (6, 3) and small[0].packed.num_values() * 1.2 <= 11 * 13
    spec = DSBlockSpec(block_cols=8, atoms=6, nnz_per_row=2)
    batches = [(x, torch.zeros(6, 3))]
    found = stf_finetune(dense, ["0"], loss, batches, spec, epochs=8, lr=1e-2, pad=True)
    assert found.losses[-1] < found.losses[0] and found.finalised()(x).shape == (6, 3)


def task():
    rng = torch.Generator().manual_seed(1)
    teacher, x = net(5), torch.randn(64, 16, generator=rng)
    with torch.no_grad():
        wanted = teacher(x)
    return teacher, [(x[i : i + 16], wanted[i : i + 16]) for i in range(0, 64, 16)]


def loss(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


@pytest.mark.parametrize("mode", MODES)
def test_training_lowers_the_loss_and_ends_in_fixed_places(mode):
    teacher, batches = task()
    found = stf_finetune(teacher, ["0"], loss, batches, SPEC, epochs=20, lr=3e-3, mode=mode)
    assert len(found.losses) == 80 and found.losses[-8:].mean() < 0.7 * found.losses[:4].mean()
    assert len(found.churn) == {"frozen": 0, "stf": 47, "stf_coef": 48}[mode]  # of 80 steps 48 search
    assert all(0 <= x <= 1 for x in found.churn)
    (layer,) = ds_layers(found.model).values()
    assert layer.mode == "frozen" and (layer.places().sum(3) == 2).all()
    with torch.no_grad():
        x = batches[0][0]
        assert torch.allclose(found.finalised()(x), found.model(x), atol=1e-5)
    if mode != "frozen":  # the values were trained on, the places were not
        assert torch.equal(found.before_polish["0.idx"], layer.idx)
        assert not torch.equal(found.before_polish["0.val"], layer.val)


def test_what_polishes_and_how_often_is_factorised_can_be_chosen():
    teacher, batches = task()
    how = {"epochs": 5, "lr": 1e-3, "mode": "stf"}
    found = stf_finetune(teacher, ["0"], loss, batches, {"0": SPEC}, **how, polish_frac=0, refactor_every=5)
    assert len(found.churn) == 3 and torch.equal(found.before_polish["0.val"], found.model[0].val)
    for wrong, what in (({"polish_frac": 1.0}, "below 1"), ({"epochs": 0}, "epochs"), ({"lr": 0}, "lr")):
        with pytest.raises(ValueError, match=what):
            stf_finetune(teacher, ["0"], loss, batches, SPEC, **how | wrong)
    with pytest.raises(ValueError, match="no batch"):
        stf_finetune(teacher, ["0"], loss, [], SPEC, **how)
    with pytest.raises(ValueError, match="no DSLinear layer"):
        finetune(teacher, loss, batches, epochs=1, lr=1e-3)


def test_a_layer_checks_what_it_is_made_of(weight):
    factors = ds_factorize(weight, SPEC)
    with pytest.raises(ValueError, match="bias must be"):
        DSLinear(factors, torch.zeros(3))
    with pytest.raises(ValueError, match="latent must be"):
        DSLinear(factors, None, "stf", weight.T)
    assert np.allclose(DSLinear(factors, None, "stf").latent.detach(), factors.to_dense())
