"""The layer of a dictionary and sparse coefficients."""

import copy

import numpy as np
import pytest
import torch

from kernels.factor.codes import SparseCodes
from workbench.models.compression.dictionary_linear import SparseDictLinear

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


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"dictionary": torch.ones(3, 2).half()}, TypeError, "must be float32 .* got torch.float16"),
        ({"indices": torch.zeros(4, 1, dtype=torch.int64)}, TypeError, "int16 or int32, .* torch.int64"),
        ({"values": torch.ones(4, 1).double()}, TypeError, "torch.float64"),
        ({"bias": torch.ones(4).half()}, TypeError, "torch.float16"),
        ({"dictionary": torch.ones(6)}, ValueError, r"dictionary must be \(k, n\)"),
        ({"indices": torch.zeros(4, dtype=torch.int16)}, ValueError, r"indices \(m, s\)"),
        ({"indices": torch.zeros(4, 1, dtype=torch.int16) - 1}, ValueError, r"must be in \[0, 3\)"),
        ({"indices": torch.ones(4, 2, dtype=torch.int16), "values": torch.ones(4, 2)}, ValueError, "duplicates"),
    ],
)
def test_what_kernels_rely_on_is_checked(change, kind, words):
    given = {
        "dictionary": torch.ones(3, 2),
        "indices": torch.zeros(4, 1, dtype=torch.int16),
        "values": torch.ones(4, 1),
    }
    with pytest.raises(kind, match=words):
        SparseDictLinear(**given | change)


def test_a_copy_computes_the_same_and_half_precision_passes_it_by():
    layer, x = SparseDictLinear.from_codes(DICTIONARY, CODES), torch.randn(3, 2)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert torch.equal(copy.deepcopy(layer).half()(x), layer(x)) and layer(x.half()).dtype == torch.float16
