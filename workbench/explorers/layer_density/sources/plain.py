"""A plain chain of convolutions and a linear layer that reads every pixel, for handwritten digits."""

from workbench.explorers.layer_density.source import NetSource, digits, one_digit, scored_digits

WIDTHS = (16, 32, 32, 64)


def build(seed):
    """Return the net with its initial weights."""
    from torch import nn

    from workbench.models.compression.crop_networks import initialise

    parts, before = [], 1
    for i, width in enumerate(WIDTHS):
        stride = 2 if i % 2 else 1
        parts += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return initialise(nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * before, 10)), seed)


SOURCE = NetSource(
    key="plain",
    title="A plain chain (digits)",
    told="Chain of four convolutions",
    build=build,
    example=one_digit,
    data=digits,
    batches=scored_digits,
)
