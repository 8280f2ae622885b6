"""Two small families of convolutional nets whose every width can be chosen: residual blocks, and inverted ones."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kernels.check import as_int

__all__ = ["MobileSpec", "ResNetSpec", "initialise"]


@dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """A residual net: a stem, stages of blocks of two 3 x 3 convolutions, the mean over pixels, and a linear layer.

    The first block of a stage has a 1 x 1 convolution as its shortcut where the stage changes width or resolution.

    Parameters
    ----------
    streams : channels of the residual stream of each stage.
    inner : channels between the two convolutions of each block, equally many blocks a stage.
    strides : of the first block of each stage.
    image : channels, rows and columns of a picture.
    classes : outputs.

    Source
    ------
    He et al. 2016, the nets for CIFAR-10 (section 4.2), with shortcut B.
    """

    streams: tuple[int, ...] = (16, 32, 64)
    inner: tuple[int, ...] = (16, 16, 32, 32, 64, 64)
    strides: tuple[int, ...] = (1, 2, 2)
    image: tuple[int, int, int] = (1, 8, 8)
    classes: int = 10

    def __post_init__(self):
        _check_widths(self, "ResNetSpec")

    def build(self, seed: int = 0) -> nn.Module:
        """Return the net, initialised with ``seed``."""
        return _built(_ResNet, self, seed)

    def scaled(self, factor: float) -> "ResNetSpec":
        """Return the spec with every width times ``factor``, rounded, and at least 1."""
        return _scaled(self, factor)


@dataclass(frozen=True, kw_only=True)
class MobileSpec:
    """A net of inverted residual blocks: 1 x 1 expansion, 3 x 3 depthwise convolution, 1 x 1 projection.

    A block adds its input to its output where both have one shape. Activations are ReLU, not ReLU6, whose cap ends the
    synaptic flow.

    Parameters
    ----------
    streams : channels of the narrow stream of each stage; the stem makes those of the first.
    inner : channels of each block's expansion, equally many blocks a stage.
    strides : of the first block of each stage.
    image : channels, rows and columns of a picture.
    classes : outputs.

    Source
    ------
    Sandler et al. 2018, "MobileNetV2", Table 1 and Figure 4d.
    """

    streams: tuple[int, ...] = (8, 16, 24)
    inner: tuple[int, ...] = (48, 48, 96, 96, 144, 144)
    strides: tuple[int, ...] = (1, 2, 2)
    image: tuple[int, int, int] = (1, 8, 8)
    classes: int = 10

    def __post_init__(self):
        _check_widths(self, "MobileSpec")

    def build(self, seed: int = 0) -> nn.Module:
        """Return the net, initialised with ``seed``."""
        return _built(_MobileNet, self, seed)

    def scaled(self, factor: float) -> "MobileSpec":
        """Return the spec with every width times ``factor``, rounded, and at least 1."""
        return _scaled(self, factor)


def initialise(model: nn.Module, seed: int) -> nn.Module:
    """Give every layer new parameters, in place: Kaiming normal by fan-out for convolutions, torch's own for others.

    Parameters
    ----------
    model : any module.
    seed : equal seeds give equal parameters; torch's global generator is left as it was.

    Source
    ------
    He et al. 2015, "Delving deep into rectifiers".
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in model.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return model


def _check_widths(spec, name):
    stages = len(spec.streams)
    if not stages or len(spec.strides) != stages or not spec.inner or len(spec.inner) % stages:
        raise ValueError(
            f"{name}: needs one stride for each of {stages} streams and equally many blocks a stage, got "
            f"{len(spec.strides)} strides and {len(spec.inner)} blocks"
        )
    for field in ("streams", "inner", "strides", "image"):
        for value in getattr(spec, field):
            as_int(value, function=name, name=field, low=1)
    as_int(spec.classes, function=name, name="classes", low=1)


def _built(kind, spec, seed):
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made
        return initialise(kind(spec), seed)


def _scaled(spec, factor):
    def widths(given):
        return tuple(max(1, round(factor * width)) for width in given)

    return replace(spec, streams=widths(spec.streams), inner=widths(spec.inner))


def _blocks(spec, make):
    """Return the blocks of all stages: ``make(channels in, inner, channels out, stride)`` makes one."""
    each, found, before = len(spec.inner) // len(spec.streams), [], spec.streams[0]
    for stage, (stream, stride) in enumerate(zip(spec.streams, spec.strides, strict=True)):
        for place in range(each):
            found.append(make(before, spec.inner[stage * each + place], stream, stride if place == 0 else 1))
            before = stream
    return nn.Sequential(*found)


class _ResNet(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.stem = nn.Conv2d(spec.image[0], spec.streams[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(spec.streams[0])
        self.blocks = _blocks(spec, _ResidualBlock)
        self.head = nn.Linear(spec.streams[-1], spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) of pictures (n, c, h, w)."""
        x = self.blocks(torch.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


class _ResidualBlock(nn.Module):
    def __init__(self, before, inner, stream, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, inner, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, stream, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(stream)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != stream:
            self.shortcut = nn.Sequential(nn.Conv2d(before, stream, 1, stride, bias=False), nn.BatchNorm2d(stream))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut(x) + convolutions of x)."""
        inside = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inside)) + self.shortcut(x))


class _MobileNet(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.stem = nn.Conv2d(spec.image[0], spec.streams[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(spec.streams[0])
        self.blocks = _blocks(spec, _InvertedBlock)
        self.head = nn.Linear(spec.streams[-1], spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) of pictures (n, c, h, w)."""
        x = self.blocks(torch.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


class _InvertedBlock(nn.Module):
    def __init__(self, before, inner, stream, stride):
        super().__init__()
        self.expand = nn.Conv2d(before, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.project = nn.Conv2d(inner, stream, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(stream)
        self.adds = stride == 1 and before == stream

    def forward(self, x: Tensor) -> Tensor:
        """Return the projection of the filtered expansion of x, plus x where shapes are equal."""
        inside = torch.relu(self.norm1(self.expand(x)))
        inside = torch.relu(self.norm2(self.depthwise(inside)))
        found = self.norm3(self.project(inside))
        return x + found if self.adds else found
