"""Files of compressed models: every kind comes back bit by bit, and what does not fit is refused before it is used."""

import copy
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from workbench.models import layer_files
from workbench.models.compression.armor import armor_factorize
from workbench.models.compression.armor_linear import ArmorLinear
from workbench.models.compression.cospadi import cospadi_compress, cospadi_compress_group
from workbench.models.compression.crop import build_cropped
from workbench.models.compression.ds_linear import MODES, DSLinear
from workbench.models.compression.dsformer import DSBlockSpec, ds_factorize
from workbench.models.compression.im2col import SparseConv2d
from workbench.models.compression.monarch import MonarchLinear
from workbench.models.layer_files import LAYERS, load_compressed, save_compressed
from workbench.models.sparse_inference.sparse_linear import SparseLinear
from workbench.models.sparse_inference.tiled_csl import SparseDecodeLinear

pytestmark = pytest.mark.usefixtures("one_thread")
SPEC = DSBlockSpec(block_cols=4, atoms=4, nnz_per_row=2)


def armor(linear):
    w = linear.weight.detach().float().numpy()
    return ArmorLinear.from_factors(armor_factorize(w, np.ones(w.shape[1]), (4, 8), iters=2), linear.bias)


def dense_sparse(linear):
    return DSLinear(ds_factorize(linear.weight.float(), SPEC, sweeps=1, pad=True), linear.bias).finalize()


def dictionary(linear):
    return cospadi_compress(linear.weight, None, 0.3, iters=1, bias=linear.bias)


MAKE = {
    "armor": armor,
    "block_groups": lambda linear: SparseLinear.from_linear(linear, sparsity=0.5, low=-3, high=3.25),
    "dense_sparse": dense_sparse,
    "dictionary": dictionary,
    "monarch": lambda linear: MonarchLinear.from_linear(linear, 3, rank=2),
    "tiled_csl": lambda linear: SparseDecodeLinear.from_linear(linear, 0.5),
}


def net(bias=True, seed=0, layers=2):
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(16, 16, bias) for _ in range(layers)), nn.LayerNorm(16)).eval()


def compressed(kinds, bias=True):
    """Return a net whose first layers are of these kinds; None leaves one dense."""
    model = net(bias, layers=len(kinds))
    for i, kind in enumerate(kinds):
        if kind:
            model[i] = MAKE[kind](model[i])
    return model.eval()


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def edit(path, change):
    """Write a file again after ``change(tensors, about, layers)``."""
    with safe_open(str(path), framework="pt") as stored:
        about = dict(stored.metadata())
    tensors, layers = load_file(str(path)), json.loads(about["layers"])
    about["layers"] = json.dumps(layers) if (said := change(tensors, about, layers)) is None else said
    save_file(tensors, str(path), metadata=about)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_every_kind_is_in_the_table_under_its_own_name():
    found = {kind: at for kind, at in LAYERS.items() if isinstance(at, str)}
    for kind, at in found.items():
        module, _, name = at.partition(":")
        assert getattr(importlib.import_module(module), name).stored_as == kind
    marked = [
        file for file in Path(layer_files.__file__).parent.rglob("*.py") if "    stored_as = " in file.read_text()
    ]
    assert len(marked) == len(found)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", MAKE)
def test_each_kind_comes_back_bit_by_bit(kind, bias, path):
    model, dense = compressed([kind, None], bias), net(bias, seed=5)
    before, state = copy.deepcopy(dense.state_dict()), torch.random.get_rng_state()
    save_compressed(model, path)
    again = load_compressed(dense, path)
    assert torch.equal(state, torch.random.get_rng_state())
    for tokens in (1, 5, 40):
        assert torch.equal(again(inputs(tokens, 16)), model(inputs(tokens, 16)))
    assert type(again[0]) is type(model[0]) and (again[0].bias is None) == (not bias)
    assert type(dense[0]) is nn.Linear and all(torch.equal(x, before[k]) for k, x in dense.state_dict().items())
    assert getattr(again[0], "nbytes", 0) == getattr(model[0], "nbytes", 0)
    assert not again[0].training and load_compressed(dense.train(), path)[0].training
    assert list(path.parent.iterdir()) == [path]


def test_kinds_mix_and_a_loaded_model_replaces_its_own_file(path):
    model = compressed([*MAKE, None])
    save_compressed(model, path)
    again = load_compressed(net(seed=1, layers=7), path)
    assert [type(each) for each in again] == [type(each) for each in model]
    x = inputs(3, 16)
    assert torch.equal(again(x), model(x))
    save_compressed(again, path)
    assert torch.equal(again(x), model(x)) and torch.equal(load_compressed(again, path)(x), model(x))


def test_a_model_that_is_one_layer(path):
    model = MAKE["monarch"](nn.Linear(16, 16))
    save_compressed(model, path)
    again = load_compressed(nn.Linear(16, 16), path)
    assert torch.equal(again(inputs(2, 16)), model(inputs(2, 16))) and again.error == model.error


def test_what_is_one_in_the_model_is_stored_once_and_is_one_again(path):
    model = net(layers=5)
    weights = [each.weight for each in model[:2]]
    model[0], model[1] = cospadi_compress_group(weights, [None] * 2, 0.3, iters=1, biases=[model[0].bias, None])
    model[2] = model[3] = MAKE["armor"](model[2])
    model.add_module("tied", copy.deepcopy(model[4]))
    model.tied.weight = model[4].weight
    save_compressed(model, path)
    held = load_file(path)
    assert [key for key in held if "dictionary" in key] == ["0.dictionary"] and not [k for k in held if k[0] == "3"]
    assert "4.weight" in held and "tied.weight" not in held
    dense = net(seed=1, layers=5)
    dense.add_module("tied", nn.Linear(16, 16))
    again = load_compressed(dense, path)
    assert again[0].dictionary is again[1].dictionary and again[2] is again[3]
    assert torch.equal(again.tied.weight, again[4].weight) and again.tied.weight is not again[4].weight
    assert torch.equal(again(inputs(4, 16)), model(inputs(4, 16)))


def test_layers_that_are_one_in_the_dense_model_may_differ_in_the_file(path):
    model = compressed(["armor", None, "monarch"])
    save_compressed(model, path)
    dense = net(layers=3)
    dense[1] = dense[2] = dense[0]
    assert torch.equal(load_compressed(dense, path)(inputs(4, 16)), model(inputs(4, 16)))


@pytest.mark.parametrize("kind", [kind for kind in MAKE if kind != "block_groups"])  # whose inputs are float32
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_was(kind, dtype, path):
    for model in (compressed([kind, None]).to(dtype), compressed([None, None]).to(dtype)):
        if type(model[0]) is nn.Linear:  # compressed after it was turned, not before
            model[0] = MAKE[kind](model[0])
        save_compressed(model, path)
        again, x = load_compressed(net(seed=3), path), inputs(5, 16).to(dtype)
        assert again[1].weight.dtype == again[2].bias.dtype == dtype
        assert again(x).dtype == dtype and torch.equal(again(x), model(x))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_layers_in_training_go_on_as_they_would_have(mode, kind, path):
    torch.manual_seed(0)
    linear = nn.Linear(10, 6)
    model = nn.Sequential(
        DSLinear(ds_factorize(linear.weight, SPEC, sweeps=1, pad=True), linear.bias, mode, linear.weight)
    )
    model.to(kind)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    save_compressed(model, path)
    again = load_compressed(nn.Sequential(nn.Linear(10, 6)), path)
    for each in (model, again):
        each(inputs(4, 10).to(kind)).square().sum().backward()
    mine, theirs = dict(model.named_parameters()), dict(again.named_parameters())
    assert list(mine) == list(theirs) and again[0].mode == mode and again[0].packed is None
    assert all(torch.equal(mine[k], x) and torch.equal(mine[k].grad, x.grad) for k, x in theirs.items())
    x = inputs(4, 10)
    assert torch.equal(again[0].finalize()(x), model[0].finalize()(x))


def convolutions():
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1, groups=8),
        nn.Conv2d(8, 6, (1, 2), bias=False), nn.Flatten(), nn.BatchNorm1d(72), nn.Linear(72, 5),
    ).eval()  # fmt: skip


def test_sparse_convolutions_come_back(path):
    model, x = convolutions(), inputs(2, 3, 8, 8)
    with torch.no_grad():
        for at in (0, 4):
            model[at].weight.mul_(torch.rand_like(model[at].weight) < 0.4)
            model[at] = SparseConv2d.from_conv(model[at])
    save_compressed(model, path)
    again = load_compressed(convolutions(), path)
    assert torch.equal(again(x), model(x)) and again[4].bias is None
    assert again[0].weight.nnz == model[0].weight.nnz < 100 and again[4].kernel_size == (1, 2)
    for other in (nn.Conv2d(3, 8, 3, padding=2), nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")):
        given = convolutions()
        given[0] = other
        with pytest.raises(ValueError, match=r"is of another architecture: .* the model's is Conv2d with"):
            load_compressed(given, path)


@pytest.mark.parametrize("widths", [{"0": 3, "4": 2}, {"0": 1}])
def test_cropped_nets_are_given_the_net_before_it_was_cropped(widths, path):
    x = inputs(4, 3, 8, 8)
    small = build_cropped(convolutions(), widths, example=x)
    small(x)  # moves the statistics of the normalisations
    save_compressed(small.eval(), path)
    again = load_compressed(convolutions(), path)
    assert torch.equal(again(x), small(x)) and again[0].weight.requires_grad
    assert again[3].groups == widths["0"] and again[7].in_features == 12 * widths.get("4", 6)
    save_compressed(again, path)
    assert torch.equal(load_compressed(convolutions(), path)(x), small(x))
    other = convolutions()
    other[7] = nn.BatchNorm1d(72)
    with pytest.raises(ValueError, match="the file holds a Linear, the model has a BatchNorm1d there"):
        load_compressed(other, path)


class Around(nn.Module):
    """A layer around a compressed one, as adapters are."""

    stored_as = "around"

    def __init__(self, base, more):
        super().__init__()
        self.base, self.more = base, nn.Parameter(more)
        self.in_features, self.out_features = base.in_features, base.out_features

    def forward(self, x):
        return self.base(x) + x @ self.more

    def file_parts(self):
        entry, parts = layer_files.layer_parts(self.base)
        return {"base": entry}, {f"base.{k}": x for k, x in parts.items()} | {"more": self.more}

    @classmethod
    def from_file(cls, config, tensors, dense):
        inner = {k.removeprefix("base."): x for k, x in tensors.items() if k != "more"}
        return cls(layer_files.layer_from_parts(config["base"], inner, dense), tensors["more"])


def test_a_layer_of_ones_own_may_stand_around_another(path, monkeypatch):
    monkeypatch.setitem(LAYERS, "around", Around)
    model = compressed(["armor", "tiled_csl"])
    model[0], model[1] = Around(model[0], torch.ones(16, 16)), Around(model[1], torch.ones(16, 16))
    save_compressed(model, path)
    again = load_compressed(net(), path)
    assert torch.equal(again(inputs(3, 16)), model(inputs(3, 16)))
    monkeypatch.delitem(LAYERS, "around")
    with pytest.raises(ValueError, match=r"has a layer of the unknown kind 'around'; known are armor, block_groups"):
        load_compressed(net(), path)
    with pytest.raises(ValueError, match="unknown kind 'around'"):
        save_compressed(model, path)


# What is refused ----------------------------------------------------------------------------------------------------
def test_what_cannot_be_stored(path):
    with pytest.raises(ValueError, match="save_compressed: the model has no layer that was replaced"):
        save_compressed(net(), path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        save_compressed(compressed(["armor"]), path.parent / "none" / "model")

    class Words(nn.Linear):
        def get_extra_state(self):
            return "words"

    model = compressed(["armor", None])
    model[1] = Words(16, 16)
    with pytest.raises(TypeError, match=r"'1._extra_state' in the model's state is no tensor"):
        save_compressed(model, path)
    assert not path.exists()


def test_what_is_no_such_file(path):
    with pytest.raises(FileNotFoundError, match=r"no file .*; write one with save_compressed"):
        load_compressed(net(), path)
    save_compressed(compressed(["armor", None]), path)
    whole = path.read_bytes()
    for content in (b"", b"no tensors", whole[: len(whole) // 2], whole[:-1], b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no file of save_compressed, or is cut off"):
            load_compressed(net(), path)
    save_file({"x": torch.ones(1)}, str(path), metadata={"format": "pt"})
    with pytest.raises(ValueError, match="its format is 'pt'"):
        load_compressed(net(), path)
    path.write_bytes(whole)
    edit(path, lambda tensors, about, layers: about.update(version="2"))
    with pytest.raises(ValueError, match="has version '2' of the format, this workbench reads '1'"):
        load_compressed(net(), path)


def swapped(model, at, layer):
    model[at] = layer
    return model


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: nn.Sequential(), "the model has no layer '0'"),
        (lambda: swapped(net(), 0, nn.Linear(16, 8)), "file has in_features=16, out_features=16, the model's is Linear "
                                                      "with in_features=16, out_features=8"),
        (lambda: swapped(net(), 0, nn.ReLU()), "the model's is ReLU with no sizes"),
        (lambda: swapped(net(), 1, nn.ReLU()), "the model has no '1.bias'"),
        (lambda: swapped(net(), 1, nn.Linear(16, 4)), r"'1.weight' is \(16, 16\) in the file and \(4, 16\) in the"),
        (lambda: swapped(net(), 1, nn.Linear(16, 16, bias=False)), "the model has no '1.bias'"),
        (lambda: net().append(nn.Linear(16, 16)), "the file has no '3.weight'"),
    ],
)  # fmt: skip
def test_another_architecture_is_refused_and_left_alone(other, words, path):
    save_compressed(compressed(["armor", None]), path)
    given = other()
    before = [type(each) for each in given.modules()]
    with pytest.raises(ValueError, match=f"is of another architecture: .*{words}"):
        load_compressed(given, path)
    assert [type(each) for each in given.modules()] == before


def put(part, value, at=(0, 0)):
    def change(tensors, about, layers):
        tensors[f"0.{part}"] = tensors[f"0.{part}"].clone()
        tensors[f"0.{part}"][at] = value

    return change


def resized(part, change):
    return lambda tensors, about, layers: tensors.update({f"0.{part}": change(tensors[f"0.{part}"]).contiguous()})


def said(**more):
    return lambda tensors, about, layers: layers["0"]["config"].update(more)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("armor", put("positions", 9), r"positions must lie in \[0, 4\)"),
        ("armor", put("positions", 3), "rise strictly"),
        ("armor", said(n=0), "n must be an int of at least 1"),
        ("armor", said(m=3), "needs|NMPacked"),
        ("armor", resized("left", lambda x: x[:2]), "left must be"),
        ("armor", resized("right", lambda x: x[:, :4]), "right must be"),
        ("armor", resized("left", torch.Tensor.half), "must be float32"),
        ("armor", resized("values", torch.Tensor.half), "values must be"),
        ("armor", resized("bias", lambda x: x[:3]), "bias must be"),
        (
            "block_groups",
            resized("indices", lambda x: (x.int() + 50).to(torch.uint16)),
            r"indices must be in \[0, 16\)",
        ),
        ("block_groups", put("indptr", 99, at=-1), "groups need data of shape"),
        ("block_groups", put("weight_scale", -1.0, at=0), "scales above 0"),
        ("block_groups", resized("bias", torch.Tensor.double), "must be int8, scales and bias float32"),
        ("block_groups", resized("bias", lambda x: x[:3]), "must be 16 numbers"),
        ("block_groups", said(low=None), "both or not at all"),
        ("block_groups", said(low="far"), "low must be"),
        ("block_groups", said(group=3), "groups need data"),
        ("dense_sparse", put("idx", 77, at=(0, 0, 0, 1)), r"idx must rise in every row and lie in \[0, 4\)"),
        ("dense_sparse", put("idx", 3, at=(0, 0, 0, 0)), "idx must rise"),
        ("dense_sparse", resized("idx", torch.Tensor.float), "idx must be uint8 or int16"),
        ("dense_sparse", said(mode="other"), "mode must be one of frozen"),
        ("dense_sparse", said(mode="stf"), "latent"),
        ("dense_sparse", said(mode="stf_coef"), "size mismatch"),
        ("dense_sparse", said(sides=[40, 16]), "sides must end in the last blocks"),
        ("dense_sparse", resized("val", lambda x: x[:, :1]), r"idx and val \(P, Q, b_r, s\)"),
        ("dictionary", put("indices", 900), r"indices|must be in \[0"),
        ("dictionary", put("indices", -1), r"must be in \[0"),
        ("dictionary", resized("indices", lambda x: x * 0), "duplicates"),
        ("dictionary", resized("dictionary", torch.Tensor.double), "must be float32"),
        ("dictionary", resized("values", lambda x: x[:5]), "indices and values must both be"),
        ("monarch", resized("w1", lambda x: x[:2]), r"w1 must be \(3, q, 6\)"),
        ("monarch", resized("w2", lambda x: x[:, :, :3]), r"w2 \(3, 6, q\)"),
        ("monarch", resized("bias", lambda x: x[:3]), "a bias"),
        ("monarch", said(nblocks=0), "nblocks must be"),
        ("monarch", said(nblocks=10**9), "w1 must be"),
        ("tiled_csl", put("nz", -50_176, at=0), "nz.0. is not zero and lies outside the matrix"),
        ("tiled_csl", put("tile_offsets", 5, at=0), "tile_offsets must begin at 0"),
        ("tiled_csl", said(shape=[16, 10**6]), "tile_offsets has"),
        ("tiled_csl", said(vector=0), "vector must be"),
        ("tiled_csl", resized("bias", lambda x: x[:3]), "a bias"),
        ("tiled_csl", resized("nz", torch.Tensor.long), "words must be int32"),
        (
            "armor",
            lambda tensors, about, layers: tensors.pop("0.left"),
            "layer '0' cannot be made: armor: lacks 'left'",
        ),
        ("monarch", lambda tensors, about, layers: layers["0"]["config"].pop("error"), "monarch: lacks 'error'"),
        ("armor", lambda tensors, about, layers: layers["0"].update(config=3), "layer '0' cannot be made"),
        ("armor", lambda tensors, about, layers: layers["0"].pop("sizes"), "its description cannot be read: KeyError"),
        ("armor", lambda tensors, about, layers: layers.update({"0": {"same": "1"}}), "the same as '1', which it does"),
        ("armor", lambda tensors, about, layers: "{broken", "its description cannot be read: JSONDecodeError"),
        ("armor", lambda tensors, about, layers: "[1, 2]", "its description cannot be read"),
        ("armor", lambda tensors, about, layers: "{}", "its description names no layer"),
        ("armor", lambda tensors, about, layers: about.update(same='{"a": "b"}'), "its description cannot be read"),
    ],
)
def test_damage_is_found_before_a_kernel_meets_it(kind, change, words, path):
    save_compressed(compressed([kind, None]), path)
    edit(path, lambda *given: said if isinstance(said := change(*given), str) else None)
    with pytest.raises(ValueError, match=f"load_compressed: .* is damaged: .*({words})"):
        load_compressed(net(), path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("columns", 10**6, at=0), r"must be in \[0, 27\)"),
        (put("columns", -1, at=0), r"must be in \[0, 27\)"),
        (put("starts", 10**6, at=-1), "starts|indptr|index pointer|weight"),
        (said(width=28), "weight must be"),
        (said(kernel_size=[3, 0]), "kernel_size"),
        (said(stride=[2, 2]), "its sizes are"),
        (resized("values", torch.Tensor.double), "float32"),
        (resized("bias", lambda x: x[:3]), "bias"),
    ],
)
def test_damage_of_convolutions_is_found(change, words, path):
    model = convolutions()
    model[0] = SparseConv2d.from_conv(model[0])
    save_compressed(model, path)
    edit(path, lambda *given: change(*given) and None)
    with pytest.raises(ValueError, match=f"is damaged: layer '0' cannot be made: .*({words})"):
        load_compressed(convolutions(), path)


def test_sizes_of_a_damaged_cropped_net_take_no_room(path):
    save_compressed(build_cropped(convolutions(), {"0": 2}, example=inputs(1, 3, 8, 8)), path)
    edit(path, lambda tensors, about, layers: layers["7"]["config"].update(source=10**12))
    with pytest.raises(ValueError, match="layer '7' cannot be made"):
        load_compressed(convolutions(), path)
