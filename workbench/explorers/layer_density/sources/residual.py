"""A residual net of 13 convolutions for handwritten digits."""

from workbench.explorers.layer_density.source import NetSource, digits, one_digit, scored_digits


def build(seed):
    """Return the net with its initial weights."""
    from workbench.models.compression.crop_networks import ResNetSpec

    return ResNetSpec().build(seed)


SOURCE = NetSource(
    key="residual",
    title="A residual net (digits)",
    told="Residual net of six blocks",
    build=build,
    example=one_digit,
    data=digits,
    batches=scored_digits,
)
