"""A net of inverted residual blocks with depthwise convolutions, for handwritten digits."""

from workbench.explorers.layer_density.source import NetSource, digits, one_digit, scored_digits


def build(seed):
    """Return the net with its initial weights."""
    from workbench.models.compression.crop_networks import MobileSpec

    return MobileSpec().build(seed)


SOURCE = NetSource(
    key="inverted",
    title="Inverted blocks, depthwise (digits)",
    told="Net of six inverted residual blocks",
    build=build,
    example=one_digit,
    data=digits,
    batches=scored_digits,
)
