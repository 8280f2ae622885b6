"""A call of attention as models make it: what it attends to against a loop, what it scores by hand, what it refuses."""

from itertools import product
from math import exp, inf

import numpy as np
import pytest
import torch

from workbench.models.attention.call import attention_call


def by_a_loop(q, k, v, seen, added, scale):
    """Return softmax over the keys that a query sees, query after query, and zero where it sees none."""
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64)
    groups = q.shape[1] // k.shape[1]
    for b, h, i in product(*map(range, q.shape[:3])):
        keys = [j for j in range(k.shape[2]) if seen[i, j]]
        weights = [exp(scale * float(q[b, h, i] @ k[b, h // groups, j]) + float(added[i, j])) for j in keys]
        for weight, j in zip(weights, keys, strict=True):
            out[b, h, i] += weight / sum(weights) * v[b, h // groups, j].double()
    return out


@pytest.mark.parametrize("kind", ["none", "bool", "added", "added half"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tq", [1, 2, 5, 9])
def test_dense_attention_is_a_loop_over_queries_and_the_keys_they_see(tq, causal, kind, assert_close):
    """Four query heads on two of keys, values of another width, and a mask under which the last query sees nothing."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, h, t, d, generator=draw) for h, t, d in ((4, tq, 8), (2, 9, 8), (2, 9, 3)))
    shown = torch.rand(tq, 9, generator=draw) < 0.6
    shown[-1] = tq == 1
    added = torch.zeros(tq, 9) if kind in ("none", "bool") else torch.randn(tq, 9, generator=draw)
    lowest = -inf
    if kind == "added half":
        added, lowest = added.half(), torch.finfo(torch.float16).min
    mask = {"none": None, "bool": shown}.get(kind, added.masked_fill(~shown, lowest))
    out = attention_call("test", q, k, v, causal=causal, scale=0.3, attn_mask=mask).dense()
    seen = torch.ones(tq, 9, dtype=torch.bool) if mask is None else shown
    later = torch.arange(9) > torch.arange(9 - tq, 9)[:, None]
    assert_close(out, by_a_loop(q, k, v, seen & ~later if causal else seen, added, 0.3).float())


def scored(mask, tq=4, causal=True, dtype=torch.float32):
    """Return q and k for scores, of one number per token: queries 1, 2, .. to 4 and keys 10 to 40, both four wide."""
    q = torch.arange(5.0 - tq, 5).reshape(1, 1, tq, 1).expand(1, 2, tq, 4).to(dtype)
    k = torch.arange(10.0, 50, 10).reshape(1, 1, 4, 1).expand(1, 1, 4, 4).to(dtype)
    q, k = attention_call("test", q, k, k, causal=causal, scale=1, attn_mask=mask).for_scores()
    return q[0, :, :, 0].tolist(), k[0, :, :, 0].tolist()


PADDED = torch.tensor([False, True, False, True])
SEES = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)


@pytest.mark.parametrize("added", [False, True])
def test_tokens_that_take_part_in_no_pair_are_scored_as_zero(added):
    """With d = 4 the scale 1 is twice 1 / sqrt(d), so queries are doubled; keys are repeated to the two heads."""

    def mask(seen):
        return torch.zeros(seen.shape).masked_fill(~seen, -inf) if added else seen

    assert scored(None) == ([[2, 4, 6, 8]] * 2, [[10, 20, 30, 40]] * 2)
    assert scored(mask(PADDED)) == ([[0, 4, 0, 8]] * 2, [[0, 20, 0, 40]] * 2)
    assert scored(mask(PADDED), causal=False) == scored(mask(PADDED))
    assert scored(mask(PADDED), tq=3) == ([[4, 0, 8]] * 2, [[0, 20, 0, 40]] * 2)
    assert scored(mask(PADDED), tq=3, causal=False)[0] == [[4, 6, 8]] * 2  # whose own keys these are is not known
    assert scored(mask(SEES)) == ([[2, 0, 6, 8]] * 2, [[10, 0, 30, 40]] * 2)
    assert scored(mask(torch.zeros(4, 4, dtype=torch.bool))) == ([[0] * 4] * 2, [[0] * 4] * 2)


def test_keys_of_a_group_are_repeated_in_a_row_for_scores():
    q, k = torch.ones(1, 4, 1, 1), torch.tensor([1.0, 2]).reshape(1, 2, 1, 1)
    _, found = attention_call("test", q, k, k, causal=True).for_scores()
    assert found.ravel().tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("given", "kept"), [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)]
)
def test_scores_are_made_of_float32_or_of_float64_that_was_given(given, kept):
    x = torch.from_numpy(np.ones((1, 1, 3, 2), given))
    call = attention_call("test", x, x, x, causal=True, attn_mask=torch.from_numpy(np.zeros((3, 3), given)))
    assert [array.dtype for array in (*call.for_scores(), call.mask_array)] == [kept] * 3


def test_the_lowest_number_of_a_mask_hides_and_one_that_is_merely_low_is_added():
    lowest = torch.finfo(torch.float16).min
    x = torch.ones(1, 1, 1, 2)
    keys = x.expand(1, 1, 3, 2)
    mask = torch.tensor([lowest, -1e4, 0.5], dtype=torch.float16)
    call = attention_call("test", x, keys, keys, causal=True, attn_mask=mask)
    assert call.mask_array.tolist() == [[[[-inf, -1e4, 0.5]]]]
    assert call.scale == 2**-0.5
    assert attention_call("test", x, keys, keys, causal=True).mask_array is None


@pytest.mark.parametrize(
    ("q", "k", "v"),
    [
        ((4, 5, 8), (2, 5, 8), (2, 5, 8)),  # no batch
        ((1, 4, 5, 8), (2, 5, 8), (1, 2, 5, 8)),
        ((1, 4, 5, 8), (2, 2, 5, 8), (2, 2, 5, 8)),
        ((1, 4, 5, 8), (1, 2, 5, 8), (1, 2, 6, 8)),
        ((1, 4, 5, 8), (1, 2, 5, 8), (1, 4, 5, 8)),
        ((1, 4, 5, 8), (1, 3, 5, 8), (1, 3, 5, 8)),
        ((1, 4, 5, 8), (1, 2, 5, 7), (1, 2, 5, 8)),
        ((1, 4, 5, 0), (1, 2, 5, 0), (1, 2, 5, 8)),
        ((1, 4, 5, 8), (1, 2, 5, 8), (1, 2, 5, 0)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(q, k, v):
    with pytest.raises(ValueError, match=r"test: q must be \(b, h, tq, d\), k .* with h a multiple of hk; got"):
        attention_call("test", *map(torch.zeros, (q, k, v)), causal=False)


def test_more_queries_than_keys_are_refused_only_where_they_are_the_last_keys():
    q, k = torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="3 queries, 2 keys"):
        attention_call("test", q, k, k, causal=True)
    assert attention_call("test", q, k, k, causal=False).dense().shape == (1, 1, 3, 2)


@pytest.mark.parametrize("shape", [(3, 4), (2, 1, 3, 5), (1, 1, 1, 3, 5)])
def test_masks_that_do_not_broadcast_or_would_widen_the_scores_are_refused(shape):
    q, k = torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 5, 2)
    with pytest.raises(ValueError, match=r"test: attn_mask must broadcast to \(1, 1, 3, 5\), got"):
        attention_call("test", q, k, k, causal=True, attn_mask=torch.ones(shape, dtype=torch.bool))
