"""Every contender computes the same attention, and the check sees when one does not."""

import numpy as np
import pytest

from workbench.bench import block_sparse_attention as bench

T, BLOCK, HEADS = 160, 32, 2


def build(backward, loaded):
    return bench._build(T, BLOCK, 0.3, backward, 2, loaded, heads=HEADS)


@pytest.mark.parametrize("backward", [False, True])
def test_ours_and_the_dense_peer_pass_the_check(backward):
    case = build(backward, [bench.DENSE])
    assert [c.name for c in case.contenders] == ["ours", bench.DENSE]
    for contender in case.contenders:
        case.check(contender.name, contender.run())


@pytest.mark.slow
def test_compiled_flex_attention_passes_or_is_named_where_it_has_no_backward():
    case = bench._build(256, 64, 0.3, False, 2, ["flex_attention"], heads=HEADS)
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    assert len(case.contenders) == 2
    case = bench._build(256, 64, 0.3, True, 2, ["flex_attention"], heads=HEADS)
    took_part = "flex_attention" in [c.name for c in case.contenders]
    assert took_part != ("flex_attention" in case.facts)


def test_the_check_sees_wrong_outputs_and_gradients():
    case = build(True, [bench.DENSE])
    good = case.contenders[0].run()
    case.check("ours", good)
    with pytest.raises(ValueError, match="out differs"):
        case.check(bench.DENSE, good)
    with pytest.raises(ValueError, match="out differs"):
        case.check("ours", case.contenders[1].run())
    for place, label in enumerate(("out", "dq", "dk", "dv")):
        bad = [x.copy() for x in good]
        bad[place][0, -1] += 1e-3
        with pytest.raises(ValueError, match=f"{label} differs"):
            case.check("ours", bad)
        bad[place][0, -1, -1, 0] = np.nan
        with pytest.raises(ValueError):
            case.check("ours", bad)


def test_gradients_of_the_check_are_those_of_torch(rng):
    import torch

    q, k, v, grad = rng.standard_normal((4, 70, bench.WIDTH))
    keep = bench.causal_block_mask(70, 16, 0.4, heads=1)[0, 0]
    allowed = torch.from_numpy(bench._allowed(keep, 16, np.arange(70), 70))
    tensors = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    logits = (tensors[0] @ tensors[1].T / bench.WIDTH**0.5).masked_fill(~allowed, -torch.inf)
    (torch.softmax(logits, -1) @ tensors[2]).backward(torch.from_numpy(grad))
    for ours, tensor in zip(bench._gradients(q, k, v, grad, keep, 16, chunk=32), tensors, strict=True):
        np.testing.assert_allclose(ours, tensor.grad.numpy(), atol=1e-10)


def test_work_counts_the_pairs_that_the_mask_allows():
    keep = bench.causal_block_mask(T, BLOCK, 0.3, heads=HEADS)
    rows = np.arange(T)
    pairs = sum(int(bench._allowed(keep[0, h], BLOCK, rows, T).sum()) for h in range(HEADS))
    assert bench._flops(keep, T, BLOCK, False) == pairs * 4 * bench.WIDTH
    assert build(False, []).flops == bench._flops(keep, T, BLOCK, False)


def test_the_mask_has_the_density_asked_for_and_the_forced_blocks():
    keep = bench.causal_block_mask(4096, 64, 0.2)
    n = keep.shape[2]
    assert keep[..., 0].all() and keep[..., np.arange(n), np.arange(n)].all() and not np.triu(keep, 1).any()
    inner = np.tri(n, k=-1, dtype=bool)
    inner[:, 0] = False
    assert keep[0, :, inner].mean() == pytest.approx(0.2, abs=0.01)


def test_cases_cover_lengths_blocks_and_densities():
    names = [spec.name for spec in bench.BENCH.specs(False, 2, ())]
    for density in (0.05, 0.1, 0.2, 0.5):
        for shape in ("1024x64", "4096x64", "4096x128", "8192x64", "16384x64"):
            assert f"{shape}/{density:g}/forward" in names
        assert f"4096x64/{density:g}/backward" in names
    assert len(set(names)) == len(names)
    groups = {spec.group for spec in bench.BENCH.specs(False, 2, ())}
    assert {goal.group for goal in bench.BENCH.goals} <= groups
