"""The weight matrices that are factored one by one, with the mean squares of their inputs."""

from functools import lru_cache

import numpy as np

from workbench.explorers.pruning.source import source
from workbench.models.compression.armor_linear import hessian_diag
from workbench.models.sparse_inference.statistics import gather_statistics, linear_layers

__all__ = ["MODELS", "layers_of"]

MODELS = {"tiny": ("small_encoder",), "small": ("small_encoder",), "full": ("minilm", "small_encoder")}


@lru_cache(maxsize=2)
def layers_of(model: str, size: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return name -> (float32 weight (m, n), float64 (n,)) of a model of the pruning explorer.

    At size "tiny" two layers on few words; the second array is what `hessian_diag` makes of calibration data.
    """
    of = source(model)
    found, batches = linear_layers(of.load()), of.calibration()
    if size == "tiny":
        found, batches = dict(list(found.items())[:2]), [batches[0][:4]]
    known = gather_statistics(of.load(), batches, layers=found)
    return {name: (layer.weight.detach().numpy(), hessian_diag(known[name])) for name, layer in found.items()}
