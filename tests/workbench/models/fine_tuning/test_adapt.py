"""One call for every method: the reader's model stays as it is, and merged, exported and stored forms agree."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.fine_tuning.adapt import adapt, load_tuned
from workbench.models.fine_tuning.lora import LoRALinear
from workbench.models.fine_tuning.method import methods

KEYS = sorted(methods())
ROUTED = {"flylora": "uses its own", "split_lora": "chooses experts"}  # methods of which no plain layer gives the same


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def batch_of(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(16, 8, generator=draw), torch.randint(3, (16,), generator=draw)


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def tuned(net, key, steps=3, **knobs):
    tuning = adapt(net, key, also=["head"], **knobs)
    tuning.train(loss, batch_of, steps=steps, rate=1e-2)
    return tuning


@pytest.mark.parametrize("key", KEYS)
def test_the_readers_model_stays_as_it_is(net, key):
    before = {name: p.clone() for name, p in net.named_parameters()}
    asked = {name: p.requires_grad for name, p in net.named_parameters()}
    tuning = tuned(net, key)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert {name: p.requires_grad for name, p in net.named_parameters()} == asked
    assert not torch.equal(tuning.model(batch_of(0)[0]), net(batch_of(0)[0]))


@pytest.mark.parametrize("key", ["lora", "linear_probe"])
def test_frozen_weights_are_shared_and_not_copied(net, key):
    there = {p.data_ptr() for p in net.parameters()}
    tuning = adapt(net, key, also=["head"])
    frozen = [p for p in tuning.model.parameters() if not p.requires_grad]
    assert len(frozen) == 4 and all(p.data_ptr() in there for p in frozen)
    assert all(p.data_ptr() not in there for p in tuning.parameters())


def test_tied_weights_stay_tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    model = adapt(net, "linear_probe").model
    assert model[0].weight is model[1].weight


@pytest.mark.parametrize("key", sorted(ROUTED))
def test_routed_methods_say_why_they_are_not_merged(net, key):
    with pytest.raises(NotImplementedError, match=ROUTED[key]):
        tuned(net, key).merge()


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ROUTED])
def test_merged_and_exported_forms_say_the_same(net, key):
    tuning, (x, _) = tuned(net, key), batch_of(7)
    merged = tuning.merge()
    torch.testing.assert_close(merged(x), tuning.model(x))
    assert not any(p.requires_grad for p in merged.parameters())
    for name, change in tuning.export().items():
        want = (merged.get_submodule(name).weight - net.get_submodule(name).weight).detach().numpy()
        np.testing.assert_allclose(change.toarray(), want, atol=1e-6)


@pytest.mark.parametrize("key", KEYS)
def test_stored_and_loaded(net, key, tmp_path):
    tuning, (x, _) = tuned(net, key), batch_of(7)
    tuning.save(tmp_path / "tuned.safetensors")
    back = load_tuned(net, tmp_path / "tuned.safetensors")
    assert torch.equal(back.model(x), tuning.model(x)) and back.knobs == tuning.knobs
    assert back.trainable == tuning.trainable


def test_files_that_do_not_fit_are_refused(net, tmp_path):
    path = tmp_path / "tuned.safetensors"
    tuned(net, "lora", r=2).save(path)
    other = Net()
    other.head = nn.Linear(8, 5)
    with pytest.raises(ValueError, match=r"made for another model: head"):
        load_tuned(other, path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="no safetensors file"):
        load_tuned(net, path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, str(path))
    with pytest.raises(ValueError, match="does not hold a tuned model"):
        load_tuned(net, path)


def test_seeds_decide_and_a_rate_of_its_own_is_used(net):
    one, same, other = (adapt(net, "lora", seed=seed).layers["layers.0"].A for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    tuning = adapt(net, "lora", also=["head"])
    assert [group["lr"] for group in tuning.groups(0.1, 0.5)] == [0.1, 0.5]
    assert sum(len(group["params"]) for group in tuning.groups(0.1, 0.5)) == len(tuning.parameters())


@pytest.mark.parametrize(("key", "arguments", "error", "message"), [
    ("loar", {}, KeyError, "lora"), ("lora", {"rank": 3}, TypeError, "no knob 'rank'; it has r, alpha"),
    ("lora", {"targets": ["layers.9"]}, KeyError, "layers.9"), ("lora", {"r": 0}, ValueError, "LoRALinear: r"),
    ("lora", {"targets": ["head"], "also": ["head"]}, ValueError, "in targets and in also"),
    ("lora", {"also": ["tail"]}, AttributeError, "tail"), ("lora", {"init_B": "ones"}, ValueError, "init_B"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(net, key, arguments, error, message):
    with pytest.raises(error, match=message):
        adapt(net, key, **arguments)


def test_lora_begins_at_the_base_and_is_its_formula():
    base = nn.Linear(6, 4)
    layer, x = LoRALinear(base, 2, alpha=6.0), torch.randn(3, 6)
    assert torch.equal(layer(x), base(x))
    layer.B.data.normal_()
    torch.testing.assert_close(layer(x), base(x) + 3.0 * (x @ layer.A.T) @ layer.B.T)
    assert LoRALinear(base, 2, init_B="kaiming").delta().abs().max() > 0
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Linear"):
        LoRALinear(nn.Conv2d(1, 1, 1))


def test_a_hugging_face_model_is_adapted_by_the_same_call():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model, ids = transformers.BertModel(config).eval(), torch.arange(10).view(2, 5)
    tuning = adapt(model, "lora", r=2)
    assert sorted(tuning.layers)[0] == "encoder.layer.0.attention.output.dense" and len(tuning.layers) == 6
    torch.testing.assert_close(tuning.model(ids).last_hidden_state, model(ids).last_hidden_state)
    tuning.train(lambda m, x: m(x).last_hidden_state[..., 0].square().mean(), lambda step: ids, steps=2, rate=1e-2)
    torch.testing.assert_close(tuning.merge()(ids).last_hidden_state, tuning.model(ids).last_hidden_state)
