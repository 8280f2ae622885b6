"""FaViT: fusion against loops and torch's padding, limits, published sizes, reach."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workbench.models.attention.dense_attention import dense_attention
from workbench.models.attention.favit import (
    FaSA,
    FaViTBlock,
    WindowAttention,
    attention_products,
    channel_groups,
    effective_attention,
    factorized_keys,
    fasa_flops,
    favit,
    favit_b0,
    fusion_matrix,
    trace,
    window_source_index,
)


def image(b=2, c=8, h=10, w=13, seed=0):
    return torch.randn(b, c, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("window", "dilation"), [(3, 1), (3, 2), (4, 1), (2, 4)])
def test_sources_are_torchs_reflection_and_unfold(window, dilation, assert_close):
    x = image()
    span = dilation * (window - 1) + 1
    padded = F.pad(x, (0, -13 % span, 0, -10 % span), mode="reflect")
    unfolded = F.unfold(padded, window, dilation=dilation, stride=span).unflatten(1, (8, window**2))
    source = window_source_index(10, 13, window, dilation)
    assert_close(x.flatten(2)[:, :, source].mT, unfolded)


def test_window_mean_is_the_average_over_windows(assert_close):
    x = image()
    z = factorized_keys(x, window=3, heads=2)
    s = torch.as_tensor(fusion_matrix(10, 13, 3).toarray())
    assert_close(s.sum(1), torch.ones(9, dtype=torch.float64))
    assert_close(z, (s @ x.flatten(2).mT).unflatten(-1, (2, 4)).transpose(1, 2))


def test_released_pooling_keeps_the_mean_over_channels_and_equals_the_other_on_one_window(assert_close):
    x = image()
    one, other = (factorized_keys(x, window=3, pooling=p, heads=2) for p in ("window_mean", "released"))
    assert_close(one.mean(-1), other.mean(-1))
    assert (one - other).abs().max() > 0.1
    small = x[:, :, :3, :3]
    assert_close(*(factorized_keys(small, window=3, pooling=p, heads=2) for p in ("window_mean", "released")))


def test_moving_a_periodic_image_by_a_span_changes_no_key(assert_close):
    x = image(h=12, w=12)
    assert_close(factorized_keys(torch.roll(x, (3, 6), (2, 3)), window=3), factorized_keys(x, window=3))


def test_one_window_is_ordinary_attention(assert_close):
    q, k, v = (torch.randn(1, 2, 9, 4, dtype=torch.float64) for _ in range(3))
    a = effective_attention(q, k, 3, 3, window=3)
    assert_close(a @ v, dense_attention(q, k, v, causal=False))


def test_effective_matrix_is_what_the_fused_keys_give(assert_close):
    q, k, v = (torch.randn(1, 1, 130, 4, dtype=torch.float64) for _ in range(3))
    a = effective_attention(q, k, 10, 13, window=3, dilation=2)
    assert_close(a.sum(-1), torch.ones(1, 1, 130, dtype=torch.float64))
    maps = [factorized_keys(x[0].mT.unflatten(2, (10, 13)), window=3, dilation=2) for x in (k, v)]
    assert_close(a @ v, torch.softmax(q @ maps[0].mT / 2, -1) @ maps[1])


@pytest.mark.parametrize(("side", "dilation", "lit"), [(56, 1, 56), (56, 8, 14), (28, 4, 13), (14, 2, 14)])
def test_published_grids_reach_what_they_should(side, dilation, lit):
    reached = np.unique(window_source_index(side, side, 7, dilation).numpy())
    assert len(reached) == lit * lit


def test_groups_and_scales():
    assert channel_groups(64, 4) == (8, 28, 28)
    assert channel_groups(256, 1) == (32, 224)
    layer = FaSA(64, 2, 4)
    _, maps = layer(torch.randn(1, 28 * 28, 64), 28, 28, return_maps=True)
    assert [m.weights.shape for m in maps] == [(1, 1, 784, 49), (1, 2, 784, 49), (1, 2, 784, 49)]
    assert len(FaSA(16, 1, 1).local) == 1


def test_each_group_has_its_own_scale_and_its_share_of_every_head(assert_close):
    layer = FaSA(64, 2, 4).double()
    x = torch.randn(1, 28 * 28, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    _, maps = layer(x, 28, 28, return_maps=True)
    q, x_map = layer.q(x), x.mT.unflatten(2, (28, 28))
    k = layer.global_kv(layer.global_norm(layer.global_conv(x_map[:, :8]).flatten(2).mT))[..., :8]
    assert_close(maps[0].weights[:, 0], torch.softmax(q[..., :8] @ k.mT * 8**-0.5, -1))
    local = layer.local_pointwise(layer.local_depthwise(x_map[:, 8:]))
    per_head = (
        q[..., 8:].unflatten(-1, (2, 28)).transpose(1, 2)
    )  # inside a head: 14 of the fine group, 14 of the coarse
    for number, part in enumerate((slice(0, 14), slice(14, 28))):
        k = layer.local[number](local[:, 28 * number : 28 * number + 28])[0]
        assert_close(maps[number + 1].weights, torch.softmax(per_head[..., part] @ k.mT * 14**-0.5, -1))


def test_constant_image_gives_constant_attention(assert_close):
    layer = FaSA(32, 2, 2, window=4).double()
    for conv in (layer.local_depthwise, layer.global_value_conv, *(g.value_conv for g in layer.local)):
        torch.nn.init.zeros_(conv.weight)
    y, maps = layer(torch.ones(1, 64, 32, dtype=torch.float64), 8, 8, return_maps=True)
    assert_close(y, y[:, :1].expand_as(y))
    for m in maps[1:]:
        assert_close(m.weights, torch.full_like(m.weights, 1 / 16))


def reach(layer, side, dim):
    """Pixels whose change moves the output at one place."""
    x = torch.randn(1, side * side, dim, requires_grad=True)
    layer(x, side, side)[0, (side + 1) * side // 2].square().sum().backward()
    return int((x.grad.abs().sum(-1) > 0).sum())


def test_one_layer_sees_the_whole_image_where_a_window_sees_itself():
    torch.manual_seed(0)
    fasa = FaSA(32, 2, 2, window=4, pooling="window_mean")
    torch.nn.init.dirac_(fasa.local_depthwise.weight, groups=28)
    assert reach(fasa, 16, 32) == 256
    assert reach(WindowAttention(32, 2, window=4), 16, 32) == 16
    assert reach(WindowAttention(32, 2, window=4, shift=True), 16, 32) == 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "millions", "giga"),
    [("b0", 3.428, 0.63), ("b1", 12.959, 2.34), ("b2", 24.920, 4.46), ("b3", 48.746, 8.51)],
)
def test_published_sizes(size, millions, giga):
    parameters = sum(p.numel() for p in favit(size).parameters())
    assert round(parameters / 1e6, 3) == millions
    assert fasa_flops(size) / 1e9 == pytest.approx(giga, rel=0.01)


@pytest.mark.slow
def test_forward_and_gradients_of_the_smallest_model():
    torch.manual_seed(0)
    model = favit("b0", num_classes=10)
    x = torch.randn(2, 3, 128, 128)
    y = model.eval()(x)
    torch.testing.assert_close(model(x[:1]), y[:1], atol=1e-5, rtol=1e-4)
    model.train()(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    copy = favit("b0", num_classes=10).eval()
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(x), model.eval()(x))


def test_block_runs_with_either_attention():
    x = torch.randn(2, 64, 32)
    for attention in (FaSA(32, 2, 2, window=4), WindowAttention(32, 2, window=4)):
        assert FaViTBlock(attention, 32)(x, 8, 8).shape == x.shape


def test_window_cost_grows_linearly():
    flops = [trace(*(torch.randn(1, 1, s * s, 4) for _ in range(2)), s, s).attention_flops for s in (14, 28)]
    assert flops[1] == 4 * flops[0]


def test_window_groups_are_linear_and_the_global_group_is_not():
    small, large = (attention_products(side * side, 64, 2) for side in (28, 56))
    ratios = {name: large[name] / small[name] for name in small}
    assert ratios == {"global": 16, "dilation 1": 4, "dilation 2": 4}
    assert small["dilation 1"] == 2 * 28 * 28 * 49 * 28 and set(attention_products(49, 64, 1)) == {
        "global",
        "dilation 1",
    }


def test_models_by_name_take_other_strides():
    net = favit_b0(10, window=4, sr_ratios=(4, 2, 2, 1))
    assert net.head.out_features == 10
    assert [blocks[0].attention.sr for blocks in net.stages] == [4, 2, 2, 1]
    assert net.stages[0][0].attention.local[1].dilation == 4


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="smallest height that works"):
        window_source_index(2, 20, 7, 1)
    with pytest.raises(ValueError, match="tokens"):
        FaSA(32, 2, 2)(torch.randn(1, 50, 32), 7, 7)
    with pytest.raises(ValueError, match="multiple of sr"):
        FaSA(32, 2, 2, window=3)(torch.randn(1, 49, 32), 7, 7)
    with pytest.raises(ValueError, match="multiple of 16"):
        FaSA(40, 2, 2)
    with pytest.raises(ValueError, match="does not fit stage"):
        favit("b0")(torch.randn(1, 3, 64, 64))
    with pytest.raises(ValueError, match="pooling"):
        factorized_keys(image(), pooling="max")
