"""PST against matrices worked out by hand, gradients written from the paper, and bytes against what autograd keeps."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from kernels.masks.magnitude import magnitude_mask
from workbench.models.fine_tuning.adapt import adapt
from workbench.models.fine_tuning.magnitude import MagnitudeLinear
from workbench.models.fine_tuning.memory import training_memory
from workbench.models.fine_tuning.pst import PSTLinear, memory_report, score_structure


def layer(m=12, n=10, drawn=True, dtype=torch.float64, **how):
    torch.manual_seed(0)
    made = PSTLinear(nn.Linear(n, m, dtype=dtype), **({"r_weight": 3, "r_score": 2} | how))
    for parameter in made.parameters() if drawn else ():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return made


def test_a_layer_worked_out_by_hand():
    base = nn.Linear(2, 2, bias=False)
    made = PSTLinear(base, r_weight=1, r_score=1, sparsity=0.5)
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
        made.R.copy_(torch.tensor([0.0, 2.0]))
    assert made.scores().tolist() == [[1, 2], [2.5, 5]] and made.mask().tolist() == [[False, False], [True, True]]
    assert made.weight_effective().tolist() == [[0, 0], [0.5, 3]]
    assert made(torch.tensor([[1.0, 1.0]])).tolist() == [[0, 3.5]]
    with torch.no_grad():
        made.C.copy_(torch.tensor([5.0, 0.0]))
        made.U.fill_(1), made.V.copy_(torch.tensor([[1.0, 0.0]]))
        made.A.copy_(torch.tensor([[2.0], [0.0]])), made.B.copy_(torch.tensor([[0.0, 3.0]]))
    assert made.weight_effective().tolist() == [[0, -2], [1.5, 0]]  # S = [[2 + 5, 2 + 6], [1.5 + 2 + 5, 3 + 2]]
    assert made.scores().tolist() == [[7, 8], [8.5, 5]]


def test_at_first_magnitudes_decide_and_nothing_changes():
    made, x = layer(drawn=False), torch.randn(5, 10, dtype=torch.float64)
    assert torch.equal(made(x), F.linear(x, made.weight, made.bias))
    for s in (0.25, 0.5, 0.9):
        made.sparsity = s
        np.testing.assert_array_equal(made.mask(), magnitude_mask(made.weight.detach().numpy(), s))
    first = layer(m=400, n=300, drawn=False, r_weight=8, r_score=8)
    for factor in (first.U, first.A):
        assert factor.shape == (400, 8) and 0.95 < factor.detach().std() < 1.05 and factor.detach().mean().abs() < 0.05
    assert not any(each.any() for each in (first.V, first.B, first.R, first.C))


@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_gradients_written_from_the_paper(through, weights):
    beta, a1, a2 = weights
    made = layer(sparsity=0.6, beta=beta, a1=a1, a2=a2, score_grad_to_weight=through)
    x, g = torch.randn(7, 10, dtype=torch.float64), torch.randn(7, 12, dtype=torch.float64)
    made(x).backward(g)
    W0, U, V, A, B, R, C = (p.detach() for p in made.parts())
    W = W0 + beta * U @ V
    S = W.abs() + a1 * A @ B + a2 * (R[:, None] + C[None, :])
    M = (S.flatten().sort().values[72] <= S).double()  # int(120 * 0.6) = 72 go
    G = g.T @ x
    dS, dW = G * W, G * (M + W.abs()) if through else G * M
    wanted = {
        "U": beta * dW @ V.T, "V": beta * U.T @ dW, "A": a1 * dS @ B.T, "B": a1 * A.T @ dS, "R": a2 * dS.sum(1),
        "C": a2 * dS.sum(0),
    }  # fmt: skip
    assert {name for name, p in made.named_parameters() if p.grad is not None} == set(wanted)
    for name, gradient in wanted.items():
        torch.testing.assert_close(getattr(made, name).grad, gradient, rtol=1e-10, atol=1e-10)
    assert made.weight.grad is None


def test_without_score_factors_it_is_magnitude_pruning_of_the_changed_weight():
    made, x = layer(a1=0.0, a2=0.0, score_grad_to_weight=False, sparsity=0.7), torch.randn(5, 10, dtype=torch.float64)
    assert made.A is made.B is made.R is made.C is None and sum(p.numel() for p in made.parameters()) == 120 + 12 + 66
    changed = nn.Linear(10, 12, dtype=torch.float64)
    with torch.no_grad():
        changed.weight.copy_(made.weight + made.U @ made.V), changed.bias.copy_(made.bias)
    other = MagnitudeLinear(changed, sparsity=0.7)
    torch.testing.assert_close(made(x), other(x))
    made(x).square().sum().backward(), other(x).square().sum().backward()
    torch.testing.assert_close(made.U.grad, other.weight.grad @ made.V.T)
    assert torch.equal(other.weight.grad != 0, other.mask())


def test_without_a_product_the_weight_is_the_frozen_one():
    made = layer(r_weight=0, r_score=0)
    assert made.U is made.A is None and made.weight_of(*made.parts()) is made.weight
    assert layer(beta=0.0).U is None and layer(a1=0.0).A is None and layer(a2=0.0).R is None


def test_what_rows_gain_and_columns_lose_changes_nothing():
    made = layer(sparsity=0.8)
    before = made.scores().detach(), made.mask()
    with torch.no_grad():
        made.R += 0.75
        made.C -= 0.75
    torch.testing.assert_close(made.scores(), before[0])
    assert torch.equal(made.mask(), before[1])


def test_a_weight_that_went_comes_back():
    base = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[0.2, 0.3]]))
    made = PSTLinear(base, r_weight=0, r_score=0, sparsity=0.5)
    optimizer, masks = torch.optim.SGD([made.R, made.C], lr=0.2), []
    for _ in range(10):
        masks.append(made.mask().tolist())
        optimizer.zero_grad()
        (made(torch.tensor([[1.0, 0.0]])) - 1).square().sum().backward()  # the first input alone matters
        optimizer.step()
    assert masks[0] == [[False, True]] and made.mask().tolist() == [[True, False]]


def test_its_trace_adds_up():
    made = layer(sparsity=0.5, a1=0.5, a2=2.0)
    found = made.trace()
    np.testing.assert_allclose(found["magnitude"] + found["low_rank"] + found["stripes"], found["scores"])
    np.testing.assert_allclose(found["low_rank"], 0.5 * (made.A @ made.B).detach().numpy())
    np.testing.assert_allclose(found["stripes"], 2.0 * (made.R[:, None] + made.C).detach().numpy())
    assert found["mask"].sum() == 60 and (found["mask"] == made.mask().numpy()).all()
    assert not layer(a1=0.0, a2=0.0).trace()["stripes"].any()


@pytest.mark.parametrize("wrong", [{"r_weight": -1}, {"r_score": -2}, {"a1": -1.0}, {"beta": float("nan")}])
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="PSTLinear: "):
        layer(**wrong)
    with pytest.raises(ValueError, match="iw \\+ fw must be less than 1"):
        adapt(nn.Sequential(nn.Linear(4, 4)), "pst", iw=0.5, fw=0.6)


def test_one_call_prunes_a_model_and_a_file_holds_factors_alone(tmp_path):
    torch.manual_seed(0)
    net, draw = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16)), torch.Generator().manual_seed(0)
    x = torch.randn(64, 16, generator=draw)
    tuning = adapt(net, "pst", targets=["0"], also=["2"], r_weight=2, r_score=2, sf=0.75)
    shares = []
    found = tuning.train(lambda m, step: F.mse_loss(m(x), x.flip(1)), lambda step: step, steps=50, rate=3e-3,
                         also_rate=1e-2, after_step=lambda *_: shares.append(tuning.layers["0"].sparsity))  # fmt: skip
    assert found.losses[-1] < found.losses[0] and shares[4] == 0 and shares[-15:] == [0.75] * 15
    assert tuning.trainable == 4 * (16 + 24) + 40 + (24 * 16 + 16)
    merged = tuning.merge()
    torch.testing.assert_close(merged(x), tuning.model(x))
    assert int((merged[0].weight == 0).sum()) == 288 and type(merged[0]) is nn.Linear
    tuning.save(tmp_path / "tuned.safetensors")
    with safe_open(str(tmp_path / "tuned.safetensors"), framework="np") as stored:
        names = set(stored.keys())
    assert names == {f"0.{part}" for part in "UVABRC"} | {"0._extra_state", "2.weight", "2.bias"}


# Structure of scores --------------------------------------------------------------------------------------------------
def test_structure_of_what_is_known():
    draw = np.random.default_rng(0)
    thin = draw.standard_normal((20, 3)) @ draw.standard_normal((3, 30))
    stripes = draw.standard_normal((20, 1)) + draw.standard_normal((1, 30))
    assert score_structure(thin, 3)["rank_energy"] == pytest.approx(1) == score_structure(thin, 3)["joint"]
    assert score_structure(stripes, 0) == {"rank_energy": 0, "rowcol_r2": pytest.approx(1), "joint": pytest.approx(1)}
    both = score_structure(thin + stripes, 3)
    assert both["joint"] == pytest.approx(1) and both["rank_energy"] < 0.99
    assert score_structure(np.ones((4, 4)), 1) == {
        "rank_energy": pytest.approx(1), "rowcol_r2": 0, "joint": pytest.approx(1)
    }  # fmt: skip


def test_structure_of_noise_is_that_of_its_degrees_of_freedom():
    noise = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    found = score_structure(noise, 8)
    assert found["rowcol_r2"] == pytest.approx((63 + 255) / (64 * 256 - 1), rel=0.15)
    values = torch.linalg.svdvals(noise.double()).square()
    assert found["rank_energy"] == pytest.approx(float(values[:8].sum() / values.sum()))
    rows, columns = noise.double().mean(1, keepdim=True), noise.double().mean(0, keepdim=True)
    left = torch.linalg.svdvals(noise.double() - rows - columns + noise.double().mean())
    assert found["joint"] == pytest.approx(float(1 - left[8:].square().sum() / values.sum()))


@pytest.mark.parametrize("S", [np.zeros((3, 3)), np.ones(3), np.array([[1, np.nan]]), np.zeros((0, 3))])
def test_what_has_no_structure_is_refused(S):
    with pytest.raises(ValueError, match="score_structure: S must be"):
        score_structure(S, 1)
    with pytest.raises(ValueError, match="score_structure: r"):
        score_structure(np.ones((3, 4)), 4)


# Memory ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("efficient", [True, False])
@pytest.mark.parametrize("key", ["magnitude", "movement", "pst"])
def test_a_step_holds_what_the_report_says(key, efficient):
    m, n, tokens = 96, 63, 50
    knobs = {"r_weight": 5, "r_score": 4} if key == "pst" else {}
    tuning = adapt(nn.Sequential(nn.Linear(n, m, bias=False)), key, memory_efficient=efficient, **knobs)
    x, optimizer = torch.randn(tokens, n, requires_grad=True), torch.optim.AdamW(tuning.parameters(), lr=1e-3)
    found = training_memory(tuning.model, lambda: tuning.model(x).sum(), optimizer)
    told = memory_report({"0": (m, n)}, tokens=tokens, r_weight=5, r_score=4, memory_efficient=efficient)[key]
    assert (told.weights, told.gradients, told.optimizer) == (found.weights, found.gradients, found.optimizer)
    assert told.saved == found.saved and told.trainable == tuning.trainable


def test_numbers_of_the_papers_models():
    encoder = {f"{i}.{j}": (768, 768) for i in range(12) for j in range(4)}
    encoder |= {f"{i}.{j}": shape for i in range(12) for j, shape in (("in", (3072, 768)), ("out", (768, 3072)))}
    found = memory_report(encoder, tokens=1)
    assert found["pst"].trainable == 2_820_096 and found["magnitude"].trainable == 84_934_656
    assert memory_report({"a": (384, 384)}, tokens=1)["pst"].trainable == 13_056
    assert memory_report({"a": (384, 1536)}, tokens=1)["pst"].trainable == 32_640
    digits = {f"{i}.{j}": (64, 64) for i in range(4) for j in range(4)}
    digits |= {f"{i}.{j}": shape for i in range(4) for j, shape in (("in", (256, 64)), ("out", (64, 256)))}
    found = memory_report(digits, tokens=850, r_weight=4, r_score=4)
    assert [found[key].trainable for key in found] == [196_608, 393_216, 41_472]


def test_formats_and_sorting_by_hand():
    found = memory_report({"a": (10, 20), "b": (5, 7)}, tokens=3, sparsity=0.9)["pst"]
    assert found.sorting == 8 * 200 and found.saved == 4 * 3 * 27 + 25 + 5
    assert found.csr == 20 * 8 + 4 * 11 + 4 * 8 + 4 * 6  # of 200 entries 20 stay, of 35 those but 31
    assert found.bitmap == 20 * 4 + 25 + 4 * 4 + 5
    for wrong in ({"shapes": {}}, {"shapes": {"a": (0, 3)}}, {"tokens": -1}, {"sparsity": 1.0}, {"r_score": -1}):
        with pytest.raises(ValueError, match=r"memory_report|cubic_sparsity"):
            memory_report(**({"shapes": {"a": (3, 3)}, "tokens": 1} | wrong))
