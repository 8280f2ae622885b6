"""A factorised matrix in words and numbers: headline, alternative texts, tables."""

import html
import math

import numpy as np

from widgets.figures.fact_table import short_number
from widgets.figures.factorization import FactorizationScene

__all__ = [
    "bytes_columns",
    "bytes_words",
    "error_columns",
    "error_words",
    "factor_columns",
    "factor_words",
    "headline",
]


def headline(scene: FactorizationScene) -> str:
    """Return the sentences above the view, as HTML."""
    m, n = scene.weight.shape
    outputs = (
        f", and the layer's outputs by {scene.output_error:.3g}" if math.isfinite(scene.output_error) else ""
    )  # fmt: skip
    text = (
        f"<b>{html.escape(scene.title)}</b>: {m:,} x {n:,} as a product of {len(scene.factors)} factors takes "
        f"<b>{scene.ratio:.3f} of the dense bytes</b> and {scene.multiply_adds / max(1, m * n):.3f} of the "
        f"multiply-adds (counted). It misses the weights by a relative <b>{scene.weight_error:.3g}</b>{outputs} "
        "(measured)."
    )
    return f"<div class='wb wb-headline' style='font-size:17px;padding:6px 4px'>{text}</div>"


def factor_words(scene: FactorizationScene) -> str:
    """Return what each factor holds."""
    return f"{scene.title}. " + " ".join(_factor(each) for each in scene.factors)


def _factor(each):
    rows, columns = each.values.shape
    return f"{each.name[0].upper()}{each.name[1:]}, {rows:,} x {columns:,}: {each.about}"


def error_words(scene: FactorizationScene) -> str:
    """Return how the error fell and what is left."""
    found = f"{scene.title}: relative error of the weights {scene.weight_error:.3g}"
    if math.isfinite(scene.output_error):
        found += f", of the outputs {scene.output_error:.3g}"
    if scene.history is not None:
        errors = scene.history.errors
        steps = len(errors) - 1
        found += f"; {scene.history.label} from {errors[0]:.3g} to {errors[-1]:.3g} in {steps:,} {scene.history.unit}"
        found += "s" * (steps != 1)
        found += "".join(f", {name} {error:.3g}" for name, error in scene.history.lines.items())
    before, left = scene.spectrum[0], scene.residual_spectrum[0]
    return f"{found}. The largest singular value was {before:.3g}; that of what is left is {left:.3g}."


def bytes_words(scene: FactorizationScene) -> str:
    """Return the stored bytes by kind."""
    told = ", ".join(f"{kind} {short_number(bits / 8)}" for kind, bits in scene.bits.items())
    total, dense = short_number(scene.total_bits / 8), short_number(scene.dense_bits / 8)
    return f"{scene.title}: {total} bytes ({told}) in place of {dense}."


def factor_columns(scene: FactorizationScene) -> dict[str, np.ndarray]:
    """Return the factors as a table: name, rows, columns, nonzeros."""
    return {
        "factor": np.array([each.name for each in scene.factors]),
        "rows": np.array([each.values.shape[0] for each in scene.factors]),
        "columns": np.array([each.values.shape[1] for each in scene.factors]),
        "nonzeros": np.array([each.nnz for each in scene.factors]),
    }


def error_columns(scene: FactorizationScene) -> dict[str, np.ndarray]:
    """Return the singular values as a table."""
    return {
        "number": np.arange(1, len(scene.spectrum) + 1),
        "singular value": scene.spectrum,
        "singular value of what is left": scene.residual_spectrum,
    }


def bytes_columns(scene: FactorizationScene) -> dict[str, np.ndarray]:
    """Return the stored bytes as a table."""
    return {
        "kind": np.array([*scene.bits, "dense"]),
        "bytes": np.array([*(bits / 8 for bits in scene.bits.values()), scene.dense_bits / 8]),
    }
