"""Layers that load their weights sparse give what dense layers with the same weights give."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from workbench.models.sparse_inference.statistics import gather_statistics
from workbench.models.sparse_inference.tiled_csl import SparseDecodeLinear, decode_sparse, pruning_mask


def layer(m=130, k=70, bias=True, seed=0):
    made = nn.Linear(k, m, bias=bias)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng).half())
    return made


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4, bias=False)).requires_grad_(False)


@pytest.mark.parametrize("shape", [(70,), (1, 70), (3, 70), (2, 3, 70), (0, 70)])
@pytest.mark.parametrize("bias", [True, False])
def test_without_pruning_it_is_the_dense_layer(assert_close, shape, bias):
    dense = layer(bias=bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert_close(SparseDecodeLinear.from_linear(dense)(x), dense(x).detach())


def test_weights_worked_out_by_hand():
    dense = nn.Linear(3, 2)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor([[3.0, -1.0, 0.5], [0.25, -4.0, 2.0]]))
        dense.bias.copy_(torch.tensor([10.0, 20.0]))
    half = SparseDecodeLinear.from_linear(dense, 0.5)  # 3, -4 and 2 stay
    assert half.weight.decode().tolist() == [[3, 0, 0], [0, -4, 2]] and half.sparsity == 0.5
    assert half(torch.tensor([1.0, 2.0, 3.0])).tolist() == [13, 18]
    by_input = SparseDecodeLinear.from_linear(dense, 1 / 3, "wanda", gram=np.diag([0.01, 1.0, 16.0]))
    assert by_input.weight.decode().tolist() == [[0, -1, 0.5], [0, -4, 2]]  # .3 1 2 and .025 4 8


def test_pads_to_whole_tiles_and_says_so():
    dense = layer()
    ours, paper = SparseDecodeLinear.from_linear(dense), SparseDecodeLinear.from_linear(
        dense, tile_k=64, reorder=True
    )  # fmt: skip
    assert (ours.padded_shape, paper.padded_shape) == ((256, 512), (256, 128))
    assert (ours.out_features, ours.in_features) == (130, 70)
    assert paper.nbytes == paper.weight.nbytes + 4 * 130
    assert ours.nbytes == ours.weight.nbytes + 4 * 130 + 4 * 2 * 128  # two tiles of 128 row ends
    bare = SparseDecodeLinear.from_linear(layer(bias=False), tile_k=64, reorder=True)
    assert bare.nbytes == bare.weight.nbytes
    x = torch.randn(2, 70, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(ours(x), paper(x), atol=1e-4) and "0.0% sparse" in repr(ours)


def test_the_result_has_the_dtype_of_the_input(assert_close):
    x = torch.randn(2, 70, generator=torch.Generator().manual_seed(1)).bfloat16()
    made = SparseDecodeLinear.from_linear(layer())
    assert made(x).dtype == torch.bfloat16
    assert_close(made(x), made(x.float()))


def test_pruning_says_what_it_needs():
    weight = layer().weight.detach().numpy()
    with pytest.raises(ValueError, match="needs gram"):
        pruning_mask(weight, 0.5, "wanda")
    with pytest.raises(ValueError, match="criterion must be one of"):
        pruning_mask(weight, 0.5, "taylor")
    with pytest.raises(ValueError, match="sparsity"):
        pruning_mask(weight, 1.5)
    assert pruning_mask(weight, 0.75).sum() == weight.size - round(0.75 * weight.size)


def test_a_weight_that_half_precision_cannot_hold_is_refused():
    dense = layer()
    with torch.no_grad():
        dense.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match="scale it"):
        SparseDecodeLinear.from_linear(dense)


def test_a_model_is_replaced_in_a_copy(assert_close):
    dense = model()
    sparse = decode_sparse(dense, 0.5)
    assert isinstance(sparse[0], SparseDecodeLinear) and isinstance(dense[0], nn.Linear)
    assert [sparse[i].sparsity for i in (0, 2)] == [0.5, 0.5]
    wanted = copy.deepcopy(dense)
    for i in (0, 2):
        wanted[i].weight.copy_(torch.from_numpy(sparse[i].weight.decode()))
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    assert_close(sparse(x), wanted(x))


def test_only_named_layers_and_the_zeros_that_there_are():
    dense = model()
    dense[2].weight[:2] = 0
    sparse = decode_sparse(dense, None, layers=["2"])
    assert isinstance(sparse[0], nn.Linear) and sparse[2].sparsity == 0.5


def test_wanda_takes_calibration_data():
    dense = model()
    batches = [torch.randn(6, 8, generator=torch.Generator().manual_seed(1)) * torch.arange(8)]
    sparse = decode_sparse(dense, 0.5, "wanda", batches=batches)
    gram = gather_statistics(dense, batches)["0"].gram
    kept = pruning_mask(dense[0].weight.numpy(), 0.5, "wanda", gram=gram)
    np.testing.assert_array_equal(sparse[0].weight.decode() != 0, kept)
    with pytest.raises(ValueError, match="pass batches"):
        decode_sparse(dense, 0.5, "wanda")
    with pytest.raises(ValueError, match="criterion"):
        decode_sparse(dense, 0.5, "snip")
