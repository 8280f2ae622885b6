"""PoNet: poolings against loops, identities under permutation and padding, maps, and gradients."""

from math import cos, erf, exp, pi, sqrt

import numpy as np
import pytest
import torch

from workbench.machines.tensor_memory import largest_tensor_bytes
from workbench.models.attention.ponet import (
    FourierMixing,
    PoNetEncoder,
    PoNetMixing,
    SelfAttentionMixing,
    effective_maps,
    global_aggregation,
    influence_map,
    local_max_pool,
    lra_segment_index,
    segment_max_pool,
    sentence_segment_index,
    small_init,
    sso_examples,
    token_segment_index,
)

pytestmark = pytest.mark.usefixtures("one_thread")
SEGMENTS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])


@pytest.fixture
def x():
    return torch.randn(2, 10, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def layer():
    torch.manual_seed(1)
    return lambda **how: PoNetMixing(8, 2, **how).double()


def test_segment_indices():
    assert lra_segment_index(10, 3).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert lra_segment_index(4096, 4096).max() == 2047
    assert lra_segment_index(1024, 1).max() == 0
    assert token_segment_index([101, 5, 6, 102, 7, 102], 101, 102).tolist() == [0, 1, 1, 2, 3, 4]
    two = token_segment_index([[101, 5, 102, 7, 102], [101, 5, 6, 6, 102]], 101, 102)
    assert two.tolist() == [[0, 1, 2, 3, 4], [0, 1, 1, 1, 2]]
    assert sentence_segment_index([2, 0, 3]).tolist() == [0, 0, 2, 2, 2]


def test_global_aggregation_is_attention_with_the_mean_query(x, assert_close):
    hq, hk = x.unflatten(-1, (2, 4)).transpose(1, 2), x.flip(1).unflatten(-1, (2, 4)).transpose(1, 2)
    g, a = global_aggregation(hq, hk)
    for head in range(2):
        weights = torch.softmax(hk[0, head] @ hq[0, head].mean(0) / 2, 0)
        assert_close(a[0, head], weights)
        assert_close(g[0, head], weights @ hk[0, head])
    equal = hk[:, :, :1].expand_as(hk)
    g, a = global_aggregation(hq, equal)
    assert_close(a, torch.full_like(a, 0.1))
    assert_close(g, equal[:, :, 0])


def test_max_pools_equal_loops(x, assert_close):
    s, l = segment_max_pool(x, SEGMENTS), local_max_pool(x)
    for n in range(10):
        assert_close(s[:, n], x[:, SEGMENTS[n] == SEGMENTS].amax(1))
        assert_close(l[:, n], x[:, max(0, n - 1) : n + 2].amax(1))
    assert_close(segment_max_pool(x, torch.zeros(10, dtype=torch.long)), x.amax(1, keepdim=True).expand_as(x))
    assert_close(segment_max_pool(x, torch.arange(10)), x)
    assert_close(local_max_pool(x, kernel_size=1), x)


def test_max_pools_leave_padding_out(x):
    """Two sequences with segments of their own; a segment of padding alone gives nothing, and window 5 reaches two."""
    segments = torch.tensor([[0, 0, 1, 1, 1, 0, 2, 2, 3, 3], [4, 0, 4, 0, 4, 0, 1, 1, 1, 1]])
    keep = torch.tensor([[1, 1, 1, 1, 0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    low = x - 20  # whoever takes a padded place for a zero finds it the largest
    s, l = segment_max_pool(low, segments, keep), local_max_pool(low, 5, keep)
    for b in range(2):
        for n in range(10):
            same = [m for m in range(10) if keep[b, m] and segments[b, m] == segments[b, n]]
            near = [m for m in range(max(0, n - 2), min(10, n + 3)) if keep[b, m]]
            for c in range(8):
                real = bool(keep[b, n])
                assert s[b, n, c] == (max(low[b, m, c] for m in same) if real else 0)
                assert l[b, n, c] == (max(low[b, m, c] for m in near) if real else 0)
    nobody = torch.zeros(2, 10, dtype=torch.bool)
    assert not segment_max_pool(low, segments, nobody).any() and not local_max_pool(low, keep=nobody).any()


@torch.no_grad()
def mixed(mix, x, segments, keep, special, *, use=("ga", "smp", "lmp"), fuse=True, average=False):
    """What the layer hands to its output map for one sequence (N, D), token by token and channel by channel."""
    n, dim = x.shape
    d = dim // mix.heads
    hq, hk, hs, hl, ho = ([m.weight @ token + m.bias for token in x] for m in (mix.q, mix.k, mix.s, mix.l, mix.o))
    real = [t for t in range(n) if keep[t]]
    g = torch.zeros(dim, dtype=x.dtype)
    for head in range(mix.heads):
        part = slice(head * d, (head + 1) * d)
        query = sum(hq[t][part] for t in real) / len(real)
        scores = [1.0 if average else exp(float(query @ hk[t][part]) / sqrt(d)) for t in real]
        for t, score in zip(real, scores, strict=True):
            g[part] += score / sum(scores) * hk[t][part]
    rows = torch.zeros(n, dim, dtype=x.dtype)
    for t in real:
        for c in range(dim):
            s = 0 if special[t] else max(hs[u][c] for u in real if segments[u] == segments[t])
            seen = [hl[u][c] for u in (t - 1, t, t + 1) if u in real and not special[u]]
            l = 0 if special[t] else max(seen)
            around = (g[c] if "ga" in use else 0) + (s if "smp" in use else 0)
            rows[t, c] = around * (ho[t][c] if fuse else 1) + (l if "lmp" in use else 0)
    return rows


@pytest.mark.parametrize(
    "how",
    [{}, {"fuse": False}, {"second_stage": False}, {"special_tokens": "plain"},
     *({"use": use} for use in (("ga",), ("smp",), ("lmp",), ("ga", "lmp"), ("smp", "lmp"), ("ga", "smp")))],
)  # fmt: skip
def test_layer_equals_loops_over_tokens_and_channels(x, layer, assert_close, how):
    segments = torch.tensor([[0, 1, 1, 2, 2, 3, 4, 4, 5, 5], [3, 0, 0, 1, 0, 2, 2, 4, 0, 0]])
    special = torch.zeros(2, 10, dtype=torch.bool)
    special[0, [0, 5]] = special[1, [0, 3, 7]] = True
    keep = torch.ones(2, 10, dtype=torch.bool)
    keep[0, 8:], keep[1, [2, 9]] = False, False
    mix = layer(**how)
    y = mix(x, segments, keep, special)
    marked = special if how.get("special_tokens") != "plain" else torch.zeros_like(special)
    options = {name: how[name] for name in ("use", "fuse") if name in how}
    for b in range(2):
        rows = mixed(mix, x[b], segments[b], keep[b], marked[b], average="second_stage" in how, **options)
        for t in range(10):
            wanted = mix.out.weight @ rows[t] + mix.out.bias if keep[b, t] else torch.zeros(8)
            assert_close(y[b, t], wanted.double())


def test_shuffling_inside_a_segment_moves_rows_only(x, layer, assert_close):
    mix = layer(use=("ga", "smp"))
    order = torch.tensor([2, 0, 1, 4, 3, 5, 8, 7, 6, 9])
    assert_close(mix(x[:, order], SEGMENTS), mix(x, SEGMENTS)[:, order])
    alone = layer(use=("ga",))
    anywhere = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    assert_close(alone(x[:, anywhere], SEGMENTS), alone(x, SEGMENTS)[:, anywhere])


def test_without_fusion_rows_of_a_segment_are_alike(x, layer, assert_close):
    y = layer(use=("ga", "smp"), fuse=False)(x, SEGMENTS)
    assert_close(y[:, 0], y[:, 1])
    fused = layer(use=("ga", "smp"))(x, SEGMENTS)
    assert (fused[:, 0] - fused[:, 1]).abs().max() > 1e-3


def test_padding_changes_nothing_real(x, layer, assert_close):
    mix = layer()
    padded = torch.cat([x, 50 * torch.ones(2, 3, 8, dtype=torch.float64)], 1)
    keep = torch.arange(13).expand(2, 13) < 10
    for tail in ([3, 3, 3], [4, 5, 5]):
        y = mix(padded, torch.cat([SEGMENTS, torch.tensor(tail)]), keep)
        assert_close(y[:, :10], mix(x, SEGMENTS))
        assert (y[:, 10:] == 0).all()


def test_special_tokens_get_the_global_part_only(x, layer, assert_close):
    mix = layer()
    special = torch.zeros(2, 10, dtype=torch.bool)
    special[:, 5] = True
    segments = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
    y = mix(x, segments, special=special)
    _, a = global_aggregation(*(p(x).unflatten(-1, (2, 4)).transpose(1, 2) for p in (mix.q, mix.k)))
    g = (a.unsqueeze(-2) @ mix.k(x).unflatten(-1, (2, 4)).transpose(1, 2)).flatten(1)
    assert_close(y[:, 5], mix.out(g * mix.o(x)[:, 5]))
    changed = x.clone()
    changed[:, 5] += 100 * mix.l.weight[0]
    poked = mix.l(changed)
    assert (poked[:, 5] > poked[:, 4]).any()
    hidden = local_max_pool(poked.masked_fill(special.unsqueeze(-1), -1e4))
    assert_close(hidden[:, 4], torch.maximum(poked[:, 3], poked[:, 4]))


def test_maps_say_what_is_read(x, layer, assert_close):
    mix = layer()
    _, maps = mix(x, SEGMENTS, return_maps=True)
    same, near = SEGMENTS[:, None] == SEGMENTS, (torch.arange(10)[:, None] - torch.arange(10)).abs() <= 1
    for name, support in (("ga", torch.ones(10, 10) > 0), ("smp", same), ("lmp", near)):
        value = getattr(maps, name)
        np.testing.assert_allclose(value.sum(-1), 1, atol=1e-6)
        assert (value[..., ~support.numpy()] == 0).all()
    hs = torch.randn(1, 10, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    one = effective_maps(torch.full((1, 1, 10), 0.1), hs, hs, SEGMENTS, 1)
    assert_close(torch.as_tensor(one.smp[0, 0]).double() @ hs[0], segment_max_pool(hs, SEGMENTS)[0])


def test_maps_by_hand():
    """Four tokens in two segments, two heads of two channels; of equal values the first token wins."""
    x = torch.tensor([[[3, 0, 5, 6], [1, 2, 0, 4], [2, 2, 1, 0], [2, 1, 1, 7]]], dtype=torch.float64)
    segments, a = torch.tensor([0, 0, 1, 1]), torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]])
    maps = effective_maps(a, x, x, segments, 2)
    assert maps.ga.dtype == np.float32
    np.testing.assert_allclose(maps.ga[0, 1], [[0.4, 0.3, 0.2, 0.1]] * 4)
    first, second, both, last = [0.5, 0.5, 0, 0], [1, 0, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 1, 0]
    assert maps.smp[0].tolist() == [[first, first, last, last], [second, second, both, both]]
    assert maps.lmp[0].tolist() == [[first, first, [0, 0.5, 0.5, 0], last], [second, second, both, both]]
    padded = effective_maps(a, x, x, segments, 2, keep=torch.tensor([[1, 1, 1, 0]]))
    assert padded.smp[0, 1, 2].tolist() == last and padded.lmp[0, 1, 2].tolist() == [0, 0.5, 0.5, 0]
    assert np.array_equal(effective_maps(a, x, x, segments, 2, kernel_size=1).lmp[0, 0], np.eye(4))


@pytest.mark.slow
def test_gradients(layer):
    mix = layer()
    y = torch.randn(1, 10, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: mix(z, SEGMENTS), (y,))


def test_parameter_counts():
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert count(PoNetMixing(64, 2)) == 6 * 64**2 + 6 * 64
    assert count(SelfAttentionMixing(64, 2)) == 4 * 64**2 + 4 * 64


def test_nothing_quadratic_is_allocated():
    """At N = 4096 an N x N tensor is 64 times one of N x D; the largest must stay O(N D)."""
    mix = PoNetMixing(64, 2)
    x, segments = torch.randn(1, 4096, 64), lra_segment_index(4096, 64)
    assert largest_tensor_bytes(lambda: mix(x, segments).sum().backward()) <= 2 * 4096 * 64 * 4


@torch.no_grad()
def test_attention_equals_loops(x, assert_close):
    """The baseline: two heads of four channels, padded keys left out."""
    torch.manual_seed(1)
    attend = SelfAttentionMixing(8, 2).double()
    keep = torch.arange(10).expand(2, 10) < torch.tensor([[7], [10]])
    y, parts = attend(x, keep=keep), (attend.qkv.weight.split(8), attend.qkv.bias.split(8))
    for b, real in ((0, 7), (1, 10)):
        q, k, v = (x[b] @ weight.T + bias for weight, bias in zip(*parts, strict=True))
        for t in range(10):
            read = torch.zeros(8, dtype=torch.float64)
            for part in (slice(0, 4), slice(4, 8)):
                scores = [exp(float(q[t, part] @ k[u, part]) / 2) for u in range(real)]
                read[part] = sum(score * v[u, part] for u, score in enumerate(scores)) / sum(scores)
            assert_close(y[b, t], attend.out.weight @ read + attend.out.bias)


@pytest.mark.parametrize("orthonormal", [True, False])
def test_fourier_mixing_is_a_sum_of_cosines(orthonormal, assert_close):
    """Not orthonormal, it is the sum itself, as in FNet's released code."""
    x = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = FourierMixing(orthonormal=orthonormal)(x)
    for n in range(5):
        for c in range(4):
            turns = [[cos(2 * pi * (n * m / 5 + c * e / 4)) for e in range(4)] for m in range(5)]
            wanted = sum(x[0, m, e] * turns[m][e] for m in range(5) for e in range(4))
            assert_close(y[0, n, c], wanted / sqrt(20) if orthonormal else wanted)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("mixing", [PoNetMixing, SelfAttentionMixing, lambda dim, heads: FourierMixing()])
def test_encoder_trains_with_every_mixing(norm, mixing):
    torch.manual_seed(0)
    encoder = PoNetEncoder(17, 32, dim=16, layers=1, mixing=mixing, norm=norm)
    ids = torch.randint(17, (3, 32))
    encoder(ids, lra_segment_index(32, 4)).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


class Blend(torch.nn.Module):
    """A stand-in for a mixing layer: every token gets half of the token before it; notes what else it is given."""

    def __init__(self, dim, heads):
        super().__init__()
        self.given = None

    def forward(self, x, *given):
        """Map (b, N, D) to (b, N, D)."""
        self.given = given
        return 0.5 * x.roll(1, 1)


@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.no_grad()
def test_encoder_adds_and_normalises_in_the_skeletons_order(norm, assert_close):
    """Pre (LRA): x + f(N(x)) and a last norm. Post (BERT): a first norm and N(x + f(x))."""
    torch.manual_seed(0)
    encoder = PoNetEncoder(7, 6, dim=4, heads=2, layers=2, hidden=5, mixing=Blend, norm=norm).double().eval()
    for module in encoder.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.LayerNorm, torch.nn.Embedding)):
            for parameter in module.parameters():
                torch.nn.init.normal_(parameter)
    ids = torch.tensor([3, 0, 6, 6, 1])

    def normal(x, place):
        norm = encoder.norms[place]
        out = [(t - t.mean()) / (((t - t.mean()) ** 2).mean() + 1e-5).sqrt() * norm.weight + norm.bias for t in x]
        return torch.stack(out)

    def mixing(x):
        return torch.stack([0.5 * x[t - 1] for t in range(5)])

    def feed(x, place):
        wide, narrow = encoder.feeds[place][0], encoder.feeds[place][2]
        gelu = lambda z: z * 0.5 * (1 + erf(z / sqrt(2)))  # noqa: E731
        hidden = [torch.tensor([gelu(float(z)) for z in wide.weight @ t + wide.bias]).double() for t in x]
        return torch.stack([narrow.weight @ h + narrow.bias for h in hidden])

    x = torch.stack([encoder.tokens.weight[i] + encoder.positions.weight[t] for t, i in enumerate(ids)])
    x = x if norm == "pre" else normal(x, 4)
    for place in range(2):
        first, second = 2 * place, 2 * place + 1
        if norm == "pre":
            x = x + mixing(normal(x, first))
            x = x + feed(normal(x, second), place)
        else:
            x = normal(x + mixing(x), first)
            x = normal(x + feed(x, place), second)
    given = (torch.zeros(5), torch.ones(1, 5), torch.zeros(1, 5))
    y = encoder(ids[None], *given)
    np.testing.assert_allclose(y[0].detach(), (normal(x, 4) if norm == "pre" else x).detach(), rtol=1e-6)
    assert all(part is whole for mix in encoder.mixings for part, whole in zip(mix.given, given, strict=True))


def test_weights_are_drawn_narrow_and_biases_are_zero():
    torch.manual_seed(0)
    linear, table = torch.nn.Linear(200, 100), torch.nn.Embedding(100, 200)
    for module in (linear, table):
        small_init(module)
        assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.03)
    assert not linear.bias.any()
    encoder = PoNetEncoder(50, 30, dim=64, layers=1)
    assert float(encoder.tokens.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not encoder.feeds[0][0].bias.any()


def test_sentence_pairs_carry_their_label():
    chunks = [[("alone", 0)], *([(c, i) for i in range(5)] for c in range(4))]
    labels, pairs = [], {0: set(), 1: set(), 2: set()}
    for a, b, label in sso_examples(chunks, np.random.default_rng(0), count=2000):
        step = b[1] - a[1]
        assert {0: a[0] == b[0] and step == 1, 1: a[0] == b[0] and step == -1, 2: a[0] != b[0]}[label]
        labels.append(label)
        pairs[label].add((a, b))
    assert len(labels) == 2000 and min(np.bincount(labels)) > 600
    assert len(pairs[0]) == len(pairs[1]) == 4 * 4  # every two neighbours of the four chunks of five
    assert len(pairs[2]) > 200 and "alone" not in {b[0] for _, b in pairs[2]}  # of 4 * 4 * 15
    with pytest.raises(ValueError, match="two chunks of two sentences"):
        sso_examples(chunks[:2], np.random.default_rng(0), count=1)


def test_without_swaps_pairs_are_next_sentence_prediction():
    chunks = [[(c, i) for i in range(5)] for c in range(4)]
    drawn = sso_examples(chunks, np.random.default_rng(0), count=200, swaps=False)
    assert {label for _, _, label in drawn} == {0, 2}
    assert all((a[0] == b[0]) == (label == 0) for a, b, label in drawn)


def test_influence_reaches_what_the_poolings_read(layer, x):
    """Segment and local pools alone reach the segment and the neighbours; a global part reaches everybody."""
    y = x[:1]
    near = (torch.arange(10)[:, None] - torch.arange(10)).abs() <= 1
    reach = ((SEGMENTS[:, None] == SEGMENTS) | near).numpy()
    parts = influence_map(layer(use=("smp", "lmp")), y, SEGMENTS)
    assert (parts[~reach] == 0).all() and (np.diag(parts) > 0).all()
    mix = layer()
    whole = influence_map(mix, y, SEGMENTS)
    assert (whole > 0).all()
    step = torch.zeros_like(y)
    step[0, 4, 3] = 1e-6
    moved = (mix(y + step, SEGMENTS) - mix(y, SEGMENTS))[0].norm(dim=1).detach() / 1e-6
    assert (moved.numpy() <= whole[:, 4] + 1e-4).all()
    with pytest.raises(ValueError, match="up to 128"):
        influence_map(mix, x, SEGMENTS)


def test_influence_of_a_linear_map_is_the_norm_of_its_blocks():
    among, inside = (
        torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.0, 3.0], [0.0, 4.0, 1.0]]),
        torch.tensor([[3.0, 0.0], [4.0, 0.0]]),
    )
    found = influence_map(lambda y, segments: among @ y @ inside, torch.ones(1, 3, 2), None)
    np.testing.assert_allclose(found, 5 * among.abs(), rtol=1e-6)


def test_the_fill_of_hidden_tokens_never_leaks(layer, x):
    """A special token between specials, and a padded segment: no -10000 in any real row."""
    segments = torch.tensor([0, 1, 2, 3, 3, 4, 5, 6, 6, 7])
    special = torch.zeros(2, 10, dtype=torch.bool)
    special[:, [0, 1, 2, 5, 6]] = True
    keep = torch.arange(10).expand(2, 10) < 7
    out = layer()(x, segments, keep, special)
    assert out.abs().max() < 100 and (out[:, 7:] == 0).all()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_an_encoder_can_stop_at_what_a_mixing_is_given(norm, assert_close):
    torch.manual_seed(0)
    encoder = PoNetEncoder(17, 32, dim=16, layers=2, norm=norm, dropout=0.0)
    ids, segments, seen = torch.randint(17, (2, 32)), lra_segment_index(32, 4), []
    for mixing in encoder.mixings:
        mixing.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    encoder(ids, segments)
    for layer, x in enumerate(list(seen)):
        assert_close(encoder(ids, segments, until=layer), x)


def test_dropout_works_in_training_only():
    torch.manual_seed(0)
    encoder = PoNetEncoder(17, 32, dim=16, layers=1, dropout=0.5)
    ids, segments = torch.randint(17, (2, 32)), lra_segment_index(32, 4)
    assert not torch.equal(encoder(ids, segments), encoder(ids, segments))
    encoder.eval()
    assert torch.equal(encoder(ids, segments), encoder(ids, segments))


def test_bad_input_is_named(x):
    for bad, words in ((SEGMENTS - 1, "negative"), (SEGMENTS.float(), "integers"), (SEGMENTS[:5], "shape")):
        with pytest.raises(ValueError, match=words):
            segment_max_pool(x, bad)
    with pytest.raises(ValueError, match="odd"):
        local_max_pool(x, 4)
    with pytest.raises(ValueError, match="cannot be causal"):
        PoNetMixing(8, 2, causal=True)
    with pytest.raises(ValueError, match="multiple of heads"):
        PoNetMixing(9, 2)
    with pytest.raises(ValueError, match="no real token"):
        PoNetMixing(8, 2).double()(x, SEGMENTS, torch.zeros(2, 10))
