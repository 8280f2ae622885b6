"""Groups of channels found by tracing: worked by hand for small nets, and refusals that name what is in the way."""

import pytest
import torch
from torch import nn

from workbench.models.compression.channel_graph import channel_groups
from workbench.models.compression.crop_networks import MobileSpec, ResNetSpec

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.zeros(2, 3, 8, 8)


def chain(*more):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2), *more)


def layers(model, x=X):
    return {layer.name: layer for layer in channel_groups(model, x).layers}


def test_a_chain_has_one_group_a_layer_and_fixed_ends():
    graph = channel_groups(chain(nn.Flatten(), nn.Linear(54, 5)), X)
    assert [(g.name, g.channels, g.fixed, g.added) for g in graph.groups] == [
        ("input", 3, True, False), ("0", 4, False, False), ("3", 6, False, False), ("5", 5, True, False)
    ]  # fmt: skip
    assert graph.free == ("0", "3") and graph.norms == {"1": ("0", 1)}
    assert [(x.name, x.source, x.target, x.area, x.pixels, x.kind) for x in graph.layers] == [
        ("0", "input", "0", 9, 64, "convolution"),
        ("3", "0", "3", 9, 9, "convolution"),
        ("5", "3", "5", 9, 1, "linear"),  # 3 x 3 pixels of each channel
    ]
    assert graph.sizes() == {"0": 9 * 3 * 4, "3": 9 * 4 * 6, "5": 9 * 6 * 5}
    assert graph.count(graph.widths) == 108 + 216 + 270
    assert graph.count({"input": 3, "0": 2, "3": 1, "5": 5}) == 54 + 18 + 45
    assert graph.count(graph.widths, "flops") == 108 * 64 + 216 * 9 + 270


def test_residual_streams_are_one_group_and_blocks_have_their_own():
    graph = channel_groups(ResNetSpec())
    streams = {g.name: g.channels for g in graph.groups if g.added}
    assert streams == {"stem": 16, "blocks.2.conv2": 32, "blocks.4.conv2": 64}
    inner = [g.channels for g in graph.groups if not g.fixed and not g.added]
    assert inner == [16, 16, 32, 32, 64, 64]
    assert graph.count(graph.widths) == 173_840
    shortcut = next(layer for layer in graph.layers if layer.name == "blocks.2.shortcut.0")
    assert (shortcut.source, shortcut.target, shortcut.area, shortcut.pixels) == ("stem", "blocks.2.conv2", 1, 16)


def test_a_depthwise_layer_grows_with_one_group():
    graph = channel_groups(MobileSpec())
    depthwise = next(layer for layer in graph.layers if layer.name == "blocks.0.depthwise")
    assert (depthwise.source, depthwise.target, depthwise.kind) == (None, "blocks.0.expand", "depthwise")
    assert depthwise.weights(graph.widths | {"blocks.0.expand": 7}) == 63
    assert graph.norms["blocks.0.norm2"] == ("blocks.0.expand", 1)


class Of(nn.Module):
    """A net of two convolutions whose forward is told by a function."""

    def __init__(self, how, last=4, **kinds):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, last, 3, padding=1)
        self.norm = nn.BatchNorm1d(4 * 64)
        self.head = nn.Linear(4, 2)
        self.group = nn.Conv2d(4, 4, 1, groups=2)
        self.how = how

    def forward(self, x):
        return self.how(self, x)


def used(self, x):
    return self.head((self.b(self.a(x)) + self.group(self.a(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda s, x: s.head(torch.cat([s.a(x), s.a(x)], 1).mean((2, 3))[:, :4]), "operation cat"),
        (used, "group is a convolution in 2 groups"),
        (lambda s, x: s.head(s.a(x).transpose(1, 3)).mean((1, 2)), "operation transpose"),
        (lambda s, x: s.head(s.a(x).permute(0, 2, 3, 1)), "operation permute"),
        (lambda s, x: s.head(s.a(x).mean((2, 3))) if x.sum() > 0 else x, "cannot be traced"),
    ],
)
def test_what_cannot_be_followed_is_named(how, words):
    with pytest.raises(TypeError, match=words):
        channel_groups(Of(how), X)


def test_unequal_widths_that_meet_are_refused():
    gate = Of(lambda s, x: s.head((s.a(x) * s.b(s.a(x))).mean((2, 3))), last=1)
    with pytest.raises(TypeError, match="joins 4 and 1 channels"):
        channel_groups(gate, X)


def test_layers_that_are_not_reached_are_listed():
    with pytest.raises(KeyError, match=r"b, group"):
        channel_groups(Of(lambda s, x: s.head(torch.relu(s.a(x)).mean((2, 3)))), X)


def test_other_modules_are_refused_by_name():
    with pytest.raises(TypeError, match=r"4 \(GroupNorm\)"):
        channel_groups(chain(nn.GroupNorm(2, 6)), X)
    with pytest.raises(TypeError, match="a linear layer on 4 axes"):
        channel_groups(chain(nn.Linear(3, 3)), X)


def test_a_module_needs_an_example_and_is_left_as_it_is():
    model = chain()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(TypeError, match="example"):
        channel_groups(model)
    channel_groups(model, torch.randn(4, 3, 8, 8))
    assert model.training and all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_views_as_rows_sums_with_numbers_and_gates_pass():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gate, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm1d(256)
            self.head = nn.Linear(256, 2)

        def forward(self, x):
            x = self.conv(x) * 2 + 1
            x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
            return self.head(self.norm(x.view(x.size(0), -1)))

    graph = channel_groups(Gated(), X)
    assert graph.free == ("conv",) and graph.norms == {"norm": ("conv", 64)}
    assert graph.layers[1].weights({"conv": 3}) == 9  # the gate reads and writes one group
    assert graph.layers[2].area == 64


def test_one_module_called_twice_joins_what_it_reads_and_writes():
    model = Of(lambda s, x: s.head(s.group_free(s.b(s.b(s.a(x)))).mean((2, 3))))
    model.group_free = nn.Identity()
    del model.group, model.norm
    graph = channel_groups(model, X)
    b = next(layer for layer in graph.layers if layer.name == "b")
    assert (b.source, b.target, b.pixels) == ("a", "a", 128)
