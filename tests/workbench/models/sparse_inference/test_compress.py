"""From a dense model to a block-sparse int8 one: any model by one call, the fused encoder, files."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.data import text
from workbench.models.language import small_encoder
from workbench.models.language.minilm import MiniConfig, MiniLM
from workbench.models.layer_files import load_compressed, save_compressed
from workbench.models.sparse_inference.block_pruned import block_sparsity
from workbench.models.sparse_inference.compress import (
    compress,
    prune_blocks_at_once,
    prune_while_distilling,
    quantise,
)
from workbench.models.sparse_inference.encoder import SparseEncoder
from workbench.models.sparse_inference.recovery import refit
from workbench.models.sparse_inference.sparse_linear import SparseLinear
from workbench.models.sparse_inference.statistics import gather_statistics, linear_layers

CONFIG = MiniConfig(vocabulary=60, layers=2, heads=2, width=32, hidden=64, context=24)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = MiniLM(CONFIG)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.3)
            elif "norm" not in name:
                weight.normal_(0, 0.1)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batches():
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(60, (4, 16), generator=draw) for _ in range(3)]


def likeness(a, b):
    return float(F.cosine_similarity(a, b, dim=-1).mean())


def test_a_model_is_compressed_by_one_call_and_stays_as_it_was(model, batches):
    before = copy.deepcopy(model.state_dict())
    fast = compress(model, batches, sparsity=0.75)
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    sparse = [layer for layer in fast.modules() if isinstance(layer, SparseLinear)]
    assert len(sparse) == 12 and not any(isinstance(layer, nn.Linear) for layer in fast.modules())
    assert all(layer.sparsity == pytest.approx(0.75, abs=0.01) for layer in sparse)
    pruned = prune_blocks_at_once(model, batches, sparsity=0.75)
    fitted = refit(pruned, model, gather_statistics(model, batches))
    assert likeness(fast(batches[0]), fitted(batches[0])) > 0.99  # what quantising adds is small
    ours, plain = (likeness(each(batches[0]), model(batches[0])) for each in (fast, pruned))
    assert plain + 0.01 < ours < 0.999


def test_blocks_that_go_at_once_are_those_of_the_least_weight_times_input(model, batches):
    pruned = prune_blocks_at_once(model, batches, sparsity=0.5)
    with torch.no_grad():
        tokens = torch.cat(batches)
        x = model.norm(model.words(tokens) + model.positions.weight[:16] + model.segments.weight[0]).flatten(0, 1)
    weight = model.layers[0].query.weight
    worth = (weight.abs() * x.norm(dim=0)).reshape(8, 4, 32).mean(1)
    kept = (pruned.layers[0].query.weight.reshape(8, 4, 32) != 0).all(1)
    assert kept.sum() == 128
    assert worth[kept].min() >= worth[~kept].max()


def test_layers_that_are_not_sparse_enough_stay_dense(model, batches):
    pruned = prune_blocks_at_once(model, batches, sparsity=0.8, layers=["layers.0.query", "layers.1.out"])
    mixed = quantise(pruned, batches)
    assert [name for name, m in mixed.named_modules() if isinstance(m, SparseLinear)] == [
        "layers.0.query",
        "layers.1.out",
    ]
    assert not any(isinstance(m, SparseLinear) for m in compress(model, batches, sparsity=0.5).modules())
    with pytest.raises(TypeError, match="is dense; compress with least_sparsity=0"):
        SparseEncoder(mixed)


def test_training_steps_bring_the_copy_nearer_to_the_model(model, batches):
    told = []
    trained = compress(
        model, batches, sparsity=0.75, steps=60, rate=3e-3, report=lambda fraction, step: told.append(fraction)
    )
    at_once = quantise(prune_blocks_at_once(model, batches, sparsity=0.75), batches)
    assert likeness(trained(batches[0]), model(batches[0])) > likeness(at_once(batches[0]), model(batches[0])) + 0.05
    assert all(block_sparsity(torch.from_numpy(layer.weight.to_dense()).float()) == pytest.approx(0.75, abs=0.02)
               for layer in trained.modules() if isinstance(layer, SparseLinear))  # fmt: skip
    assert told == sorted(told) and told[0] == 0


def test_movement_pruning_is_a_criterion_with_single_weights(model, batches):
    how = {"sparsity": 0.75, "steps": 10, "rate": 1e-3, "block": (1, 1)}
    by_movement = prune_while_distilling(model, batches, criterion="movement", **how)
    by_size = prune_while_distilling(model, batches, criterion="magnitude", **how)
    layers = [linear_layers(each) for each in (by_movement, by_size)]
    for name, layer in layers[0].items():
        assert block_sparsity(layer.weight, (1, 1)) == pytest.approx(0.75, abs=0.01)
        assert not torch.equal(layer.weight != 0, layers[1][name].weight != 0)


def test_every_training_step_begins_without_gradients_and_trains_layers_and_norms(model, batches):
    def loss(pupil, dense, batch):
        assert dense is model and all(parameter.grad is None for parameter in pupil.parameters())
        return F.mse_loss(pupil(batch), dense(batch) + 1)

    pupil = prune_while_distilling(model, batches, sparsity=0.5, steps=3, loss=loss)
    moved = {name for name, x in pupil.named_parameters() if not torch.equal(x, model.get_parameter(name))}
    inside = {name for name, _ in model.named_parameters() if name.startswith(("layers.", "norm."))}
    # A bias of the keys shifts all logits of a query alike, so only rounding moves it.
    assert moved - {n for n in moved if "key.bias" in n} == inside - {n for n in inside if "key.bias" in n}
    assert not any(parameter.requires_grad for parameter in pupil.parameters())


def test_the_fused_encoder_gives_what_the_layers_give_one_by_one(model, batches):
    fast = compress(model, batches, sparsity=0.75)
    fused, one_by_one = SparseEncoder(fast)(batches[0]), fast(batches[0])
    assert fused.shape == (4, 16, 32) and fused.dtype == torch.float32
    assert likeness(fused, one_by_one) > 0.999  # a rounding apart where the hidden part is quantised from other sums


def test_the_fused_encoder_keeps_out_padding(model, batches):
    fused = SparseEncoder(compress(model, batches, sparsity=0.75))
    real = torch.arange(16) < torch.tensor([16, 9, 12, 1])[:, None]
    tokens = batches[0]
    other = torch.where(real, tokens, (tokens + 7) % 60)
    a, b = fused(tokens, real), fused(other, real)
    torch.testing.assert_close(a[real], b[real], rtol=0, atol=1e-5)
    assert not torch.allclose(a[~real], b[~real], atol=1e-2)


def test_a_file_brings_the_compressed_model_back_bit_by_bit(model, batches, tmp_path):
    fast = compress(model, batches, sparsity=0.75)
    save_compressed(fast, tmp_path / "fast.safetensors")
    again = load_compressed(MiniLM(CONFIG).eval(), tmp_path / "fast.safetensors")
    assert torch.equal(again(batches[0]), fast(batches[0]))
    assert torch.equal(SparseEncoder(again)(batches[0]), SparseEncoder(fast)(batches[0]))


def test_the_encoder_that_ships_runs_on_the_kernel_and_finds_the_same_texts(tmp_path):
    dense = small_encoder.load()
    batches = list(dense.windows(text.sample(24_000)[0], 64)[:80].split(16))
    fast = compress(dense, batches[:4], sparsity=0.5, least_sparsity=0.0)
    assert sum(isinstance(layer, SparseLinear) for layer in fast.modules()) == 24
    save_compressed(fast, tmp_path / "fast.safetensors")
    fused = SparseEncoder(load_compressed(MiniLM(small_encoder.CONFIG).eval(), tmp_path / "fast.safetensors"))
    before, after = (F.normalize(run(batches[4]).mean(1), dim=1) for run in (dense, fused))
    assert 0.95 < (before * after).sum(1).mean() < 0.9999
    assert torch.equal((after @ before.T).argmax(1), torch.arange(16))  # each is still nearest to itself


def test_other_models_and_outputs_are_taken():
    class Output:
        def __init__(self, logits):
            self.logits = logits

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 8)])

        def forward(self, x, scale):
            return Output(self.blocks[1](torch.relu(self.blocks[0](x))) * scale)

    torch.manual_seed(0)
    own, data = Own(), [torch.randn(5, 8) for _ in range(2)]
    fast = compress(own, data, sparsity=0.75, steps=3, forward=lambda model, x: model(x, 2.0))
    assert fast(data[0], 2.0).logits.shape == (5, 8)
    assert sum(isinstance(m, SparseLinear) for m in fast.modules()) == 2
    with pytest.raises(TypeError, match="the model returns tuple"):
        compress(own, data, sparsity=0.75, steps=1, forward=lambda model, x: (model(x, 2.0), 1))
    compress(own, data, sparsity=0.75, steps=1, forward=lambda model, x: (model(x, 2.0), 1),
             loss=lambda model, dense, x: model(x, 1.0).logits.square().mean())  # fmt: skip


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sparsity": 1.5}, "sparsity"),
        ({"sparsity": float("nan")}, "sparsity"),
        ({"block": (5, 1)}, "5 x 1"),
        ({"block": (4, 3)}, r"4 x 3|1, 2 or 4"),
        ({"steps": -1}, "steps"),
        ({"steps": 1, "rate": 0.0}, "rate"),
        ({"least_sparsity": 2.0}, "least_sparsity"),
    ],
)
def test_what_makes_no_sense_is_refused(model, batches, given, told):
    with pytest.raises(ValueError, match=told):
        compress(model, batches, **given)


def test_without_data_nothing_is_compressed(model):
    with pytest.raises(ValueError, match="batches is empty"):
        compress(model, [])
    with pytest.raises(KeyError, match="is no linear layer"):
        compress(model, [torch.zeros(1, 4, dtype=torch.long)], layers=["nothing"])


def test_layers_of_the_model_are_found(model):
    assert len(linear_layers(model)) == 12
    assert np.all([name.startswith("layers.") for name in linear_layers(model)])
