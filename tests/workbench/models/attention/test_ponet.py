"""PoNet: poolings against loops, identities under permutation and padding, maps, and gradients."""

import numpy as np
import pytest
import torch

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
    sso_examples,
    token_segment_index,
)

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


@pytest.mark.slow
def test_gradients(layer):
    mix = layer()
    y = torch.randn(1, 10, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: mix(z, SEGMENTS), (y,))


def test_parameter_counts():
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert count(PoNetMixing(64, 2)) == 6 * 64**2 + 6 * 64
    assert count(SelfAttentionMixing(64, 2)) == 4 * 64**2 + 4 * 64


def test_nothing_quadratic_is_allocated(largest_tensor):
    """At N = 16384 an N x N float would take 1 GiB; the largest tensor must stay O(N D)."""
    mix = PoNetMixing(64, 2)
    with largest_tensor:
        mix(torch.randn(1, 16384, 64), lra_segment_index(16384, 64)).sum().backward()
    assert largest_tensor.size <= 2 * 16384 * 64


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("mixing", [PoNetMixing, SelfAttentionMixing, lambda dim, heads: FourierMixing()])
def test_encoder_trains_with_every_mixing(norm, mixing):
    torch.manual_seed(0)
    encoder = PoNetEncoder(17, 32, dim=16, layers=1, mixing=mixing, norm=norm)
    ids = torch.randint(17, (3, 32))
    encoder(ids, lra_segment_index(32, 4)).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_sentence_pairs_carry_their_label():
    chunks = [[(c, i) for i in range(5)] for c in range(4)]
    labels = []
    for a, b, label in sso_examples(chunks, np.random.default_rng(0), count=300):
        step = b[1] - a[1]
        assert {0: a[0] == b[0] and step == 1, 1: a[0] == b[0] and step == -1, 2: a[0] != b[0]}[label]
        labels.append(label)
    assert min(np.bincount(labels)) > 70


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
