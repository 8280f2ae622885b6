"""The layer of a dictionary and sparse coefficients, and its file against the model that was stored."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kernels.factor.codes import SparseCodes
from workbench.models.compression.dictionary_linear import SparseDictLinear, load_dictionaries, save_dictionaries

DICTIONARY = np.array([[1.0, 0, 2], [0, 1, 1]])  # three atoms of two inputs, as columns
CODES = SparseCodes(indices=np.array([[2, 0], [1, 2]], np.int32), values=np.array([[3.0, 1], [5, 0]]),
                    counts=np.array([2, 1], np.int32), atoms=3)  # fmt: skip


def test_by_hand():
    """Row 0: 3 (2, 1) + (1, 0); row 1: 5 (0, 1), filled up with atom 0 to 2."""
    layer = SparseDictLinear.from_codes(DICTIONARY, CODES, torch.tensor([0.5, -1]))
    assert layer.to_dense().tolist() == [[7, 3], [0, 5]]
    assert layer.indices.tolist() == [[0, 2], [1, 2]] and layer.values.tolist() == [[1, 3], [5, 0]]
    assert layer(torch.tensor([[1.0, 2], [0, 1]])).tolist() == [[13.5, 9], [3.5, 4]]
    assert layer.multiply_adds == 3 * 2 + 4 and layer.stored_bits() == 16 * (6 + 4) + 2 * 3
    assert layer.nbytes == 24 + layer.packed.nbytes + 8
    assert "in_features=2, out_features=2, atoms=3, s=2" in repr(layer)


def test_parts_must_fit():
    atoms, at = torch.ones(3, 2), torch.zeros(4, 1, dtype=torch.int16)
    with pytest.raises(ValueError, match="indices and values must both be"):
        SparseDictLinear(atoms, at, torch.ones(4, 2))
    with pytest.raises(ValueError, match="bias must be"):
        SparseDictLinear(atoms, at, torch.ones(4, 1), torch.ones(3))
    with pytest.raises(ValueError, match=r"must be in \[0, 3\)"):
        SparseDictLinear(atoms, at + 3, torch.ones(4, 1))


class Net(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
        self.norm, self.head = nn.LayerNorm(2), nn.Linear(2, width)

    def forward(self, x):
        return self.head(self.norm(self.first(x) + self.second(x)))


@pytest.fixture
def small():
    torch.manual_seed(0)
    model = Net().eval().requires_grad_(False)
    model.first, model.second = SparseDictLinear.sharing(DICTIONARY, [CODES, CODES], [torch.ones(2), None])
    return model


def test_a_file_gives_the_model_back_and_holds_a_shared_dictionary_once(small, tmp_path):
    path = tmp_path / "small.safetensors"
    save_dictionaries(small, path)
    stored = load_file(path)
    assert [name for name in stored if "dictionary" in name] == ["dictionary.0"]
    again = load_dictionaries(Net().eval().requires_grad_(False), path)
    assert again.first.dictionary.data_ptr() == again.second.dictionary.data_ptr()
    assert again.second.bias is None and again.first.indices.dtype == torch.int16
    x = torch.randn(5, 2)
    assert torch.equal(again(x), small(x))


def test_what_is_no_such_file(small, tmp_path):
    path = tmp_path / "small.safetensors"
    save_dictionaries(small, path)
    with pytest.raises(FileNotFoundError, match="save_dictionaries"):
        load_dictionaries(Net(), tmp_path / "none")
    with pytest.raises(ValueError, match="of another architecture"):
        load_dictionaries(nn.Sequential(nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match="of another architecture"):
        load_dictionaries(Net(width=3), path)
    wide = Net()
    wide.first = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"layer 'first' of the file is 2 x 2"):
        load_dictionaries(wide, path)
    save_file({"x": torch.ones(1)}, str(tmp_path / "other"))
    (tmp_path / "words").write_text("no tensors")
    for name in ("other", "words"):
        with pytest.raises(ValueError, match="is no file of save_dictionaries"):
            load_dictionaries(Net(), tmp_path / name)
    with pytest.raises(ValueError, match="no SparseDictLinear layer"):
        save_dictionaries(Net(), path)


def test_a_copy_computes_the_same(small):
    x = torch.randn(3, 2)
    assert torch.equal(copy.deepcopy(small)(x), small(x))
