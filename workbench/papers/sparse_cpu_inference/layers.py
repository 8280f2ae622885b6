"""The linear layers that the authors' tests multiply with, and weights drawn for them."""

from dataclasses import dataclass

import numpy as np

SPARSITIES = (0.7, 0.75, 0.8, 0.85, 0.9)  # the five of the abstract


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A linear layer of a published model: outputs (rows of the weight), inputs, and the tokens given to it at once."""

    model: str
    outputs: int
    inputs: int
    tokens: int

    @property
    def labels(self) -> dict:
        """The layer as labels of a row."""
        return {"model": self.model, "outputs": self.outputs, "inputs": self.inputs, "tokens": self.tokens}


LAYERS = tuple(
    Layer(model=model, outputs=outputs, inputs=inputs, tokens=tokens)
    for model, width, tokens in (("BERT-Mini", 256, 128), ("BERT-base", 768, 256), ("BERT-large", 1024, 384))
    for outputs, inputs in ((width, width), (4 * width, width), (width, 4 * width))
)


def drawn_weight(outputs, inputs, density, *, block=(4, 1), seed=0) -> np.ndarray:
    """Draw an int8 weight (outputs, inputs); each of its blocks is kept with probability ``density``."""
    rng = np.random.default_rng(seed)
    kept = rng.random((outputs // block[0], inputs // block[1])) < density
    values = rng.integers(1, 128, (outputs, inputs)) * rng.choice((-1, 1), (outputs, inputs))
    return np.where(kept.repeat(block[0], 0).repeat(block[1], 1), values, 0).astype(np.int8)
