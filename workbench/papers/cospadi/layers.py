"""The weight matrices that are factored one by one, with the Gram matrices of their inputs."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workbench.explorers.pruning.source import source
from workbench.models.sparse_inference.statistics import gather_statistics, linear_layers

__all__ = ["MODELS", "Layers", "error_of", "layers_of"]

MODELS = {"tiny": ("small_encoder",), "small": ("small_encoder",), "full": ("minilm", "small_encoder")}


@dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """The linear layers of a model.

    Parameters
    ----------
    weights : name -> float32 (m, n).
    grams : name -> float64 (n, n), X^T X of the inputs on calibration data.
    """

    weights: dict[str, np.ndarray]
    grams: dict[str, np.ndarray]

    def block(self, number: int) -> list[str]:
        """Return the names of the layers of one transformer block."""
        return [name for name in self.weights if name.split(".")[1] == str(number)]


@lru_cache(maxsize=2)
def layers_of(model: str, size: str) -> Layers:
    """Return the layers of a model of the pruning explorer; at size "tiny" those of its first block, on few words."""
    of = source(model)
    found, batches = linear_layers(of.load()), of.calibration()
    if size == "tiny":
        found = {name: layer for name, layer in found.items() if name.split(".")[1] == "0"}
        batches = [batches[0][:4]]
    known = gather_statistics(of.load(), batches, layers=found)
    return Layers(
        weights={name: layer.weight.detach().numpy() for name, layer in found.items()},
        grams={name: each.gram for name, each in known.items()},
    )


def error_of(weights, approximations, grams) -> float:
    """Return the relative error of the outputs of several matrices together."""
    before = after = 0.0
    for w, near, gram in zip(weights, approximations, grams, strict=True):
        change = w.astype(np.float64) - near
        after += float(np.einsum("mn,mn->", change @ gram, change))
        before += float(np.einsum("mn,mn->", w.astype(np.float64) @ gram, w.astype(np.float64)))
    return float(np.sqrt(max(after, 0.0) / before))
