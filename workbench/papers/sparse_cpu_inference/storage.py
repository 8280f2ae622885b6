"""What 4 x 1 blocks cost in padding and bytes, by density."""

from kernels.formats.block_groups import BlockGroupedWeight
from workbench.paper import row
from workbench.papers.sparse_cpu_inference.layers import LAYERS, drawn_weight

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
GROUP, WIDE_INDEX = 4, 8
LAYERS_OF = {"tiny": LAYERS[:1], "small": LAYERS[:3], "full": LAYERS}


def storage(size, seed, report):
    """Count padding, bytes and multiply-adds of drawn weights, and the density at which bytes break even."""
    rows = []
    for place, layer in enumerate(LAYERS_OF[size]):
        report(place / len(LAYERS_OF[size]), f"{layer.outputs} x {layer.inputs}")
        for density in DENSITIES:
            rows += _counted(layer, density, seed)
        rows += _break_even(layer)
    return rows


def expected_padding(inputs, density) -> float:
    """Return the share of stored blocks that fill up groups if the last group of a block row lacks 1.5 on average."""
    return 1.5 / (inputs * density + 1.5)


def _counted(layer, density, seed):
    weight = BlockGroupedWeight.from_dense(drawn_weight(layer.outputs, layer.inputs, density, seed=seed))
    stored = len(weight.indices)
    wide = weight.nbytes + stored * (WIDE_INDEX - weight.indices.itemsize)
    labels = {"model": layer.model, "outputs": layer.outputs, "inputs": layer.inputs, "density": density}
    counted = {
        "padding over stored blocks": (weight.padding / stored if stored else 0.0, "fraction"),
        "padding over stored blocks, expected": (expected_padding(layer.inputs, density), "fraction"),
        "bytes, indices of 2": (weight.nbytes, "bytes"),
        "bytes, indices of 8": (wide, "bytes"),
        "bytes, dense int8": (layer.outputs * layer.inputs, "bytes"),
        "multiply-adds for a token": (int(weight.data.size), "multiply-adds"),
        "multiply-adds for a token, dense": (layer.outputs * layer.inputs, "multiply-adds"),
    }
    return [row(name, value, unit, "counted", **labels) for name, (value, unit) in counted.items()]


def _break_even(layer):
    """Return the density at which a weight takes as many bytes as a dense one, by the bytes of an index."""
    rows, whole = [], layer.outputs * layer.inputs
    for each in (2, WIDE_INDEX):
        group = 4 * GROUP + each * GROUP  # bytes of 16 weights
        pointers = 8 * (layer.outputs // 4 + 1)
        density = (whole - pointers) * 4 * GROUP / group / whole
        labels = {"model": layer.model, "outputs": layer.outputs, "inputs": layer.inputs, "index_bytes": each}
        rows.append(row("density at which bytes break even", density, "fraction", "counted", **labels))
    return rows
