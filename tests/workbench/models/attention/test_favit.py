"""FaViT: fusion against loops and torch's padding, limits, published sizes, reach."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workbench.models.attention.dense_attention import dense_attention
from workbench.models.attention.favit import (
    FaSA,
    FaViT,
    FaViTBlock,
    Size,
    WindowAttention,
    attention_products,
    channel_groups,
    effective_attention,
    factorized_keys,
    fasa_multiply_adds,
    favit,
    favit_b0,
    fusion_matrix,
    trace,
    window_source_index,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_places_by_hand():
    """5 x 3 pixels, windows of 2 x 2: the sixth row mirrors the fourth, the fourth column the second."""
    found = window_source_index(5, 3, 2).tolist()
    assert found == [[0, 1, 3, 4], [2, 1, 5, 4], [6, 7, 9, 10], [8, 7, 11, 10], [12, 13, 9, 10], [14, 13, 11, 10]]
    assert window_source_index(3, 3, 2, 2).tolist() == [[0, 2, 6, 8]]  # one pixel is left out between two


@pytest.mark.parametrize(("window", "dilation"), [(7, 1), (3, 2), (2, 4), (4, 3)])
def test_the_smallest_map_that_is_named_works_and_no_smaller_one(window, dilation):
    with pytest.raises(ValueError, match="height 1 is too small") as error:
        window_source_index(1, 100, window, dilation)
    smallest = int(re.search(r"works is (\d+)", str(error.value))[1])
    assert window_source_index(smallest, 100, window, dilation).max() < smallest * 100
    with pytest.raises(ValueError, match=f"height {smallest - 1}"):
        window_source_index(smallest - 1, 100, window, dilation)


def fused(grid, window, dilation, heads, pooling):
    """Keys (h, M*M, c/h) of one image (c, H, W): the pixels at one place of all windows, looked up one by one."""
    (c, height, width), span = grid.shape, dilation * (window - 1) + 1
    mirrored = lambda i, size: i if i < size else 2 * (size - 1) - i  # noqa: E731
    keys = np.zeros((heads, window * window, c // heads))
    for head, a, b in np.ndindex(heads, window, window):
        taken = []
        for top in range(0, height, span):
            for left in range(0, width, span):
                pixel = grid[:, mirrored(top + a * dilation, height), mirrored(left + b * dilation, width)]
                taken.append(pixel[head * (c // heads) : (head + 1) * (c // heads)])
        if (
            pooling == "released"
        ):  # one run of numbers, window after window, cut into pieces as long as the windows are many
            entries = [number for pixel in taken for number in pixel]
            taken = [entries[i :: len(taken)] for i in range(len(taken))]
        keys[head, a * window + b] = sum(map(np.array, taken)) / len(taken)
    return keys


@pytest.mark.parametrize("pooling", ["window_mean", "released"])
@pytest.mark.parametrize(("window", "dilation"), [(3, 1), (3, 2), (2, 3)])
def test_fused_keys_equal_loops(pooling, window, dilation, assert_close):
    x = image()
    found = factorized_keys(x, window=window, dilation=dilation, pooling=pooling, heads=2)
    for b in range(2):
        assert_close(found[b], fused(x[b].numpy(), window, dilation, 2, pooling))


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


def convolved(grid, conv, *, stride=1, pad=1, groups=1):
    """Convolution of one image (c, H, W) with a module's weights, place by place, zeros around."""
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    (o, i, k, _), (_, height, width) = weight.shape, grid.shape
    out = np.zeros((o, (height + 2 * pad - k) // stride + 1, (width + 2 * pad - k) // stride + 1))
    for channel, y, x in np.ndindex(*out.shape):
        first, total = channel * groups // o * i, bias[channel]
        for a, b in np.ndindex(k, k):
            row, column = y * stride + a - pad, x * stride + b - pad
            if 0 <= row < height and 0 <= column < width:
                total += weight[channel, :, a, b] @ grid[first : first + i, row, column]
        out[channel, y, x] = total
    return out


def mapped(module, x):
    """Linear map of tokens (n, c)."""
    return x @ module.weight.detach().numpy().T + module.bias.detach().numpy()


def normalised(x, norm, eps):
    """Layer norm of tokens (n, c)."""
    centred = x - x.mean(1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def read(q, k, v):
    """Softmax attention of queries (n, d) over keys (m, d) by loops; outputs and weights."""
    weights = np.array([[np.exp(query @ key / np.sqrt(len(query))) for key in k] for query in q])
    weights /= weights.sum(1, keepdims=True)
    return weights @ v, weights


def random_weights(module):
    """Draw every parameter at random, norms and biases too, so that each of them counts."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


def fasa(layer, x, height, width, *, c0, local, dilations, heads, window, sr, pooling):
    """The layer's output (N, C) and each group's weights per head, from the paper's description."""
    grid, q = x.T.reshape(-1, height, width), mapped(layer.q, x)
    summary = convolved(grid[:c0], layer.global_conv, stride=sr, pad=0)  # as many places as sr x sr squares
    down, across = summary.shape[1:]
    kv = mapped(layer.global_kv, normalised(summary.reshape(c0, -1).T, layer.global_norm, 1e-5))
    k, v = kv[:, :c0], kv[:, c0:]
    v = v + convolved(v.T.reshape(c0, down, across), layer.global_value_conv, groups=c0).reshape(c0, -1).T
    out, weights = read(q[:, :c0], k, v)
    outs, maps, c_l = [out], [weights[None]], sum(local)
    between = convolved(convolved(grid[c0:], layer.local_depthwise, groups=c_l), layer.local_pointwise, pad=0)
    before, seen = 0, 0  # channels of groups before, in the map and inside a head's share of q
    for group, c, dilation in zip(layer.local, local, dilations, strict=True):
        d = c // heads
        z = fused(between[before : before + c], window, dilation, heads, pooling)
        kv = np.stack([mapped(group.kv, mapped(group.fuse, z[head])) for head in range(heads)])
        k, v = kv[..., :d], kv[..., d:]
        places = np.concatenate([v[head].T for head in range(heads)]).reshape(c, window, window)
        moved = convolved(places, group.value_conv, groups=c).reshape(heads, d, -1).swapaxes(1, 2)
        share = [c0 + head * (c_l // heads) + seen for head in range(heads)]
        found = [read(q[:, at : at + d], k[head], v[head] + moved[head]) for head, at in enumerate(share)]
        outs += [out for out, _ in found]
        maps.append(np.stack([weights for _, weights in found]))
        before, seen = before + c, seen + d
    return mapped(layer.out, np.concatenate(outs, 1)), maps


@pytest.mark.parametrize("pooling", ["window_mean", "released"])
@pytest.mark.parametrize(
    ("dim", "sr", "groups"), [(32, 2, {"c0": 4, "local": (14, 14), "dilations": (1, 2)}),
                              (16, 1, {"c0": 2, "local": (14,), "dilations": (1,)})],
)  # fmt: skip
def test_layer_equals_loops(dim, sr, groups, pooling, assert_close):
    layer = random_weights(FaSA(dim, 2, sr, window=2, pooling=pooling))
    x = torch.randn(2, 24, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y, maps = layer(x, 4, 6, return_maps=True)
    assert_close(layer(x, 4, 6), y)
    for b in range(2):
        wanted, weights = fasa(layer, x[b].numpy(), 4, 6, heads=2, window=2, sr=sr, pooling=pooling, **groups)
        assert_close(y[b], wanted)
        for found, by_loops in zip(maps, weights, strict=True):
            assert_close(found.weights[b], by_loops)


@pytest.mark.parametrize("shift", [False, True])
def test_windows_equal_loops_over_pixels(shift, assert_close):
    """A pixel reads its own window; shifted windows begin at half a window, and those at the border stay cut."""
    layer = random_weights(WindowAttention(4, 2, window=4, shift=shift))
    x = torch.randn(2, 96, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y, start = layer(x, 8, 12), 2 if shift else 0
    home = [((i // 12 - start) // 4, (i % 12 - start) // 4) for i in range(96)]
    for b in range(2):
        q, k, v = np.split(mapped(layer.qkv, x[b].numpy()), 3, 1)
        out = np.zeros((96, 4))
        for i in range(96):
            mine = [j for j in range(96) if home[j] == home[i]]
            for part in (slice(0, 2), slice(2, 4)):
                out[i, part] = read(q[[i], part], k[mine, part], v[mine, part])[0][0]
        assert_close(y[b], mapped(layer.out, out))


class Half(torch.nn.Module):
    """A stand-in for attention: half of what it is given."""

    def forward(self, x, height, width):
        """Map (B, N, C) to (B, N, C)."""
        return x / 2


def test_block_equals_loops(assert_close):
    """Norms of eps 1e-6 before both parts; the depthwise convolution stands before the GELU."""
    block = random_weights(FaViTBlock(Half(), 4, mlp_ratio=3)).eval()
    x = 2e-3 * torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mid = x[0].numpy() + normalised(x[0].numpy(), block.norm1, 1e-6) / 2
    wide = mapped(block.widen, normalised(mid, block.norm2, 1e-6)).T.reshape(12, 3, 4)
    wide = convolved(wide, block.conv, groups=12).reshape(12, -1).T
    gelu = np.vectorize(lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2)
    assert_close(block(x, 3, 4)[0], mid + mapped(block.narrow, gelu(wide)))


def test_stochastic_depth_keeps_the_mean():
    block, branch = FaViTBlock(Half(), 4, drop_path=0.25), torch.ones(4000, 2, 1)
    torch.manual_seed(0)
    kept = block._kept(branch)
    assert set(kept.unique().tolist()) == {0, torch.tensor(4 / 3).item()} and torch.equal(kept[:, 0], kept[:, 1])
    assert abs(float((kept[:, 0] > 0).float().mean()) - 0.75) < 0.03
    assert block.eval()._kept(branch) is branch and FaViTBlock(Half(), 4).train()._kept(branch) is branch


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


SIZES_PUBLISHED = [("b0", 3.428, 0.63), ("b1", 12.959, 2.34), ("b2", 24.920, 4.46), ("b3", 48.746, 8.51)]


@pytest.mark.parametrize(("size", "millions", "giga"), SIZES_PUBLISHED)
def test_published_sizes(size, millions, giga, monkeypatch):
    """Counted once by formula and once from the shapes that pass through every layer; no number is computed."""
    with torch.device("meta"):
        model, images = favit(size).eval(), torch.empty(1, 3, 224, 224)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == millions
    counted, sides = [], []

    def multiply_adds(module, args, out):
        counted.append(out.numel() * module.weight[0].numel())  # one row of weights for every number that comes out

    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and module is not model.head:
            module.register_forward_hook(multiply_adds)
    for conv, _ in model.embeds:
        conv.register_forward_hook(lambda module, args, out: sides.append(tuple(out.shape[2:])))
    attention = F.scaled_dot_product_attention

    def products(q, k, v):
        counted.append(2 * q.numel() * k.shape[2])
        return attention(q, k, v)

    monkeypatch.setattr(F, "scaled_dot_product_attention", products)
    assert model(images).shape == (1, 1000)
    assert sides == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert fasa_multiply_adds(size) == sum(counted)
    assert fasa_multiply_adds(size) / 1e9 == pytest.approx(giga, rel=0.01)


def test_stages_hand_maps_on_in_raster_order_and_the_head_reads_the_mean():
    size = Size((16, 16, 32, 32), (1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1), (2, 1, 1, 1))
    model, seen = random_weights(FaViT(size, 5, window=2)).eval(), {}
    for stage in range(4):
        conv, norm = model.embeds[stage]
        for name, module in (("conv", conv), ("embed", norm), ("block", model.stages[stage][0]),
                             ("norm", model.norms[stage])):  # fmt: skip
            note = lambda module, args, out, at=(name, stage): seen.update({at: (args[0], out)})  # noqa: E731
            module.register_forward_hook(note)
    logits = model(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    width = 24
    for stage in range(4):
        given, out = seen["conv", stage]
        width = width if stage == 0 else width // 2
        assert torch.equal(seen["embed", stage][0][1, width + 2], out[1, :, 1, 2])  # row 1, column 2
        assert torch.equal(seen["block", stage][0], seen["embed", stage][1])
        assert torch.equal(seen["norm", stage][0], seen["block", stage][1])
        if stage:
            assert torch.equal(given[1, :, 1, 2], seen["norm", stage - 1][1][1, 2 * width + 2])
    mean = sum(seen["norm", 3][1][1]) / 6
    np.testing.assert_allclose(logits[1].detach(), (model.head.weight @ mean + model.head.bias).detach(), rtol=1e-9)


def test_networks_start_as_published():
    torch.manual_seed(0)
    net = favit_b0(10, window=4)
    spread = lambda module: float(module.weight.detach().std())  # noqa: E731
    block = net.stages[1][0]
    assert spread(block.widen) == pytest.approx(0.02, rel=0.05) and not block.widen.bias.any()
    assert spread(net.embeds[0][0]) == pytest.approx((2 / (49 * 32)) ** 0.5, rel=0.05)
    assert spread(block.conv) == pytest.approx((2 / 9) ** 0.5, rel=0.05) and not block.conv.bias.any()
    assert [block.drop_path for blocks in net.stages for block in blocks] == pytest.approx(np.arange(12) / 110)
    assert {norm.eps for norm in net.norms} == {1e-6} and {norm.eps for _, norm in net.embeds} == {1e-5}


def test_trace_by_hand():
    """8 x 8 pixels, windows of 3 with steps of 2: rows and columns 0, 2, 4, 5, 7; the sixth is met twice."""
    zero = torch.zeros(1, 1, 64, 3)
    seen = trace(zero, zero, 8, 8, window=3, dilation=2)
    once = np.array([1, 0, 1, 0, 1, 2, 0, 1]) / 6  # of six windows' rows: 0 2 4 and 5 7 9, and 9 mirrors 5
    np.testing.assert_allclose(seen.effective, np.tile(np.outer(once, once).ravel(), (64, 1)), rtol=1e-5)
    assert seen.coverage == seen.density == 0 and seen.allowed is None  # no pixel is weighed by itself
    assert seen.reached.sum() == 64 * 25 and (seen.reached == (seen.effective > 0)).all()
    assert seen.cost.summaries == 64 * 9 and seen.cost.kept.multiply_adds == 2 * 64 * 9 * 3
    assert seen.cost.before == 2 * 9 * 4 * 3  # keys and values: nine sums over four windows, three channels each
    assert seen.facts == {"fused keys per query": 9, "pixels reached": 25}


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
    traces = [trace(*(torch.randn(1, 1, s * s, 4) for _ in range(2)), s, s) for s in (14, 28)]
    assert traces[1].cost.kept.multiply_adds == 4 * traces[0].cost.kept.multiply_adds


def test_window_groups_are_linear_and_the_global_group_is_not():
    small, large = (attention_products(side * side, 64, 2) for side in (28, 56))
    ratios = {name: large[name] / small[name] for name in small}
    assert ratios == {"global": 16, "dilation 1": 4, "dilation 2": 4}
    assert attention_products(16, 32, 2, window=3) == {
        "global": 2 * 16 * 4 * 4,
        "dilation 1": 2 * 16 * 9 * 14,
        "dilation 2": 2 * 16 * 9 * 14,
    }
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
