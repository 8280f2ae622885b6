"""Routed feed-forward layers against a loop over tokens, the masked dense form, and the layer that they came from."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.fine_tuning.lora import LoRALinear
from workbench.models.fine_tuning.routed_ffn import ACTIVATIONS, RoutedFFN

KINDS = [("relu", False), ("gelu", False), ("gelu_tanh", False), ("silu", True)]


def made(act="relu", gated=False, *, d_lora=3, seed=0, **how):
    """Return a layer whose every parameter is random."""
    torch.manual_seed(seed)
    layer = RoutedFFN(6, 16, act=act, gated=gated, d_lora=d_lora, **how).double()
    for p in layer.parameters():
        nn.init.normal_(p, std=0.5)
    return layer


def draw(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_hand(layer, x):
    """Compute a token at a time, as the formula reads."""
    act, size = ACTIVATIONS[layer.act], layer.layers["fc1"].out_features // layer.n_blocks
    out, picked = [], []
    for token in x.reshape(-1, x.shape[-1]):
        probability = torch.sigmoid(layer.router.weight @ token + layer.router.bias)
        best = sorted(range(layer.n_blocks), key=lambda i: (-float(probability[i].detach()), i))[: layer.active]
        y = layer.layers["fc2"].bias.clone()
        for i in best:
            c, where = 2 * probability[i] if layer.d_lora else 1.0, slice(i * size, (i + 1) * size)

            def inner(part, c=c, where=where, token=token):
                base = layer.layers[part].weight[where] @ token + layer.layers[part].bias[where]
                thin = layer.lora[part].B[where] @ (layer.lora[part].A @ token) if layer.d_lora else 0.0
                return c * base + thin

            h = act(inner("gate")) * inner("fc1") if layer.gated else act(inner("fc1"))
            y = y + c * layer.layers["fc2"].weight[:, where] @ h
            if layer.d_lora:
                y = y + layer.lora["fc2"].B @ (layer.lora["fc2"].A[:, where] @ h)
        out.append(y)
        picked.append(best)
    return torch.stack(out).view_as(x), picked


@pytest.mark.parametrize(("act", "gated"), KINDS)
@pytest.mark.parametrize("d_lora", [0, 3])
def test_it_is_its_formula(act, gated, d_lora, assert_close):
    layer, x = made(act, gated, d_lora=d_lora), draw(2, 9, 6)
    wanted, picked = by_hand(layer, x)
    assert_close(layer(x), wanted)
    mask = layer.route(x.view(-1, 6))[1]
    assert [row.nonzero()[:, 0].tolist() for row in mask] == [sorted(best) for best in picked]
    load = layer.router_load(x)
    assert float(load.sum()) == pytest.approx(2) and load.tolist() == mask.double().mean(0).tolist()
    assert len({tuple(best) for best in picked}) > 2


@pytest.mark.parametrize(("act", "gated"), KINDS)
@pytest.mark.parametrize("active", [1, 2, 4])
def test_results_and_gradients_equal_those_of_the_masked_dense_form(act, gated, active, assert_close):
    layer, x = made(act, gated, active=active), draw(11, 6).requires_grad_()
    places = layer.in_place()

    def split(x):
        value = places["fc1"](x)
        hidden = ACTIVATIONS[act](places["gate"](x)) * value if gated else ACTIVATIONS[act](value)
        return places["fc2"](hidden)

    found = []
    for form in (layer.reference, layer, split):
        y = form(x)
        gradients = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
        found.append([y.detach(), *gradients])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert_close(two, one)
    names = [name for name, _ in layer.named_parameters()]
    for name, gradient in zip(names, found[1][2:], strict=True):
        assert gradient.abs().max() > 0, name  # the router among them


@pytest.mark.parametrize(("act", "gated"), KINDS)
def test_all_blocks_and_a_coefficient_of_one_are_the_layer_itself(act, gated, assert_close):
    layer, x = made(act, gated, active=4), draw(7, 6)
    nn.init.zeros_(layer.router.weight), nn.init.zeros_(layer.router.bias)
    for thin in layer.lora.values():
        nn.init.zeros_(thin.B)
    assert (layer.route(x)[0] == 1).all()
    f, part = ACTIVATIONS[act], layer.layers
    hidden = f(part["gate"](x)) * part["fc1"](x) if gated else f(part["fc1"](x))
    assert_close(layer(x), part["fc2"](hidden))


def test_equal_probabilities_pick_the_lower_blocks_with_a_coefficient_of_one():
    layer = made()
    nn.init.zeros_(layer.router.weight), nn.init.zeros_(layer.router.bias)
    c, picked = layer.route(draw(5, 6))
    assert (c == 1).all() and picked.tolist() == [[True, True, False, False]] * 5


def test_the_router_learns_with_low_rank_paths_alone():
    x = draw(9, 6)
    for d_lora, learns in ((0, False), (3, True)):
        layer = made(d_lora=d_lora)
        layer(x).square().sum().backward()
        assert (layer.router.weight.grad is not None) == learns


def test_the_last_bias_is_added_once_and_no_token_is_none(assert_close):
    layer = made(active=3)
    nn.init.zeros_(layer.layers["fc2"].weight), nn.init.zeros_(layer.lora["fc2"].B)
    assert_close(layer(draw(4, 6)), layer.layers["fc2"].bias.expand(4, 6).detach())
    assert layer(draw(0, 6)).shape == (0, 6)
    free = RoutedFFN(6, 16, bias=False).double()
    assert_close(free(draw(4, 6)), free.reference(draw(4, 6)))


def test_no_product_is_formed_for_a_block_that_was_not_picked():
    from torch.utils.flop_counter import FlopCounterMode

    counted = []
    for active in (1, 2, 4):
        layer = made(d_lora=0, active=active)
        with FlopCounterMode(display=False) as counter:
            layer(draw(32, 6))
        counted.append(counter.get_total_flops() - 2 * 32 * 6 * 4)  # without the router
    assert counted == [4 * 32 * 6 * 16 * active // 4 for active in (1, 2, 4)]


def test_the_balance_is_least_where_loads_are_even():
    layer, x = made(balance=0.5), draw(40, 6)
    layer.train()(x)
    loss = layer.balance_loss()
    p, (_, picked) = torch.sigmoid(layer.router(x)), layer.route(x)
    torch.testing.assert_close(loss, 0.5 * 4 * (picked.double().mean(0) / 2 * p.mean(0)).sum())
    assert torch.autograd.grad(loss, layer.router.weight)[0].abs().max() > 0
    layer._loss = None
    assert layer.balance_loss() == 0
    layer.eval()(x)
    assert layer.balance_loss() == 0
    without = made().train()
    without(x)
    assert without.balance_loss() == 0


def test_it_takes_over_the_layers_of_a_model(assert_close):
    torch.manual_seed(0)
    fc1, fc2, x = nn.Linear(6, 16), nn.Linear(16, 6), draw(5, 6).float()
    layer = RoutedFFN.from_pretrained(fc1, fc2, active=4, act="gelu", d_lora=2)
    nn.init.zeros_(layer.router.weight), nn.init.zeros_(layer.router.bias)
    assert_close(layer(x), fc2(F.gelu(fc1(x))))
    assert layer.layers["fc1"].weight is fc1.weight
    asked = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert asked == {"router.weight", "router.bias", *(f"lora.{a}.{b}" for a in ("fc1", "fc2") for b in "AB")}
    thin = [LoRALinear(each, 2) for each in (fc1, fc2)]
    for each in thin:
        nn.init.normal_(each.B)
    layer = RoutedFFN.from_pretrained(*thin, active=4, act="gelu", d_lora=2)
    nn.init.zeros_(layer.router.weight), nn.init.zeros_(layer.router.bias)
    assert_close(layer(x), thin[1](F.gelu(thin[0](x))))
    assert layer.lora["fc1"].A is thin[0].A
    with pytest.raises(ValueError, match="fc1 has rank 2 and factor 1, wanted 3 and 1"):
        RoutedFFN.from_pretrained(*thin, d_lora=3)


def test_parts_in_their_places_can_be_copied_and_called_in_turn():
    layer, x = made(), draw(5, 6)
    model = nn.Sequential(layer.in_place()["fc1"], nn.ReLU(), layer.in_place()["fc2"])
    wanted = model(x)
    assert len(list(model.parameters())) == len(list(layer.parameters()))
    torch.testing.assert_close(wanted, layer(x))
    model[0](x)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(x), model(x))
    nn.init.zeros_(copied[0].routed.layers["fc1"].weight)
    assert not torch.equal(copied(x), model(x)) and torch.equal(model(x), wanted)
    with pytest.raises(RuntimeError, match="before the first one"):
        model[2](draw(5, 16))


@pytest.mark.parametrize(("how", "error", "told"), [
    ({"d_ff": 15}, ValueError, "d_ff must be a multiple of n_blocks=4, got 15"),
    ({"active": 5}, ValueError, "active must be an int from 1 to 4, got 5"),
    ({"active": 0}, ValueError, "active must be an int from 1 to 4, got 0"),
    ({"act": "tanh"}, ValueError, "act must be one of relu"), ({"d_lora": -1}, ValueError, "d_lora"),
    ({"balance": -1}, ValueError, "balance"), ({"d": 2.5}, TypeError, "d must be an int"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(how, error, told):
    with pytest.raises(error, match=f"RoutedFFN: {told}"):
        RoutedFFN(**({"d": 6, "d_ff": 16} | how))
    with pytest.raises(ValueError, match="fc2 must turn fc1 around"):
        RoutedFFN.from_pretrained(nn.Linear(6, 16), nn.Linear(6, 16))
    with pytest.raises(TypeError, match=r"base must be a torch\.nn\.Linear"):
        RoutedFFN.from_pretrained(nn.ReLU(), nn.Linear(16, 6))
