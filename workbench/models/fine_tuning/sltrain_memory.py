"""What pre-training holds by SLTrain's own account, from the sizes of a LLaMA: parameters, indices, bytes."""

from dataclasses import dataclass

from kernels.check import as_int, as_number, check_choice

__all__ = ["LLAMAS", "Llama", "MemoryReport", "memory_report"]

OPTIMIZERS = ("adam", "adam8bit")
METHODS = ("full", "low_rank", "sltrain")
BYTES = {"float32": 4, "bfloat16": 2}
BLOCK, LEAST = 256, 4096  # of the 8-bit optimiser: numbers that share a scale; smaller tensors stay in float32


@dataclass(frozen=True, kw_only=True)
class Llama:
    """Sizes of a LLaMA: width, width inside the feed-forward part, layers, tokens in the vocabulary."""

    width: int
    inner: int
    layers: int
    vocabulary: int = 32_000

    @property
    def linear(self) -> list[tuple[int, int]]:
        """(m, n) of every linear layer in the blocks: four of attention and three of the feed-forward part each."""
        d, f = self.width, self.inner
        return ([(d, d)] * 4 + [(f, d)] * 2 + [(d, f)]) * self.layers

    @property
    def dense(self) -> list[int]:
        """Sizes of the tensors that stay as they are: embedding, head and norms."""
        return [self.vocabulary * self.width] * 2 + [self.width] * (2 * self.layers + 1)


LLAMAS = {
    "60M": Llama(width=512, inner=1376, layers=8), "130M": Llama(width=768, inner=2048, layers=12),
    "350M": Llama(width=1024, inner=2736, layers=24), "1B": Llama(width=2048, inner=5461, layers=24),
    "7B": Llama(width=4096, inner=11008, layers=32),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """Trained numbers, those of S among them, and bytes held between two steps (gradients: during one)."""

    parameters: int
    sparse: int
    weights: int
    indices: int
    gradients: int
    optimizer: int

    @property
    def stated(self) -> int:
        """Bytes as the paper states them: weights, indices and the optimiser, without gradients."""
        return self.weights + self.indices + self.optimizer


def memory_report(
    config: Llama, method: str = "sltrain", *, r: int = 128, delta: float = 0.03, dtype: str = "bfloat16",
    optimizer: str = "adam", index_dtype: str = "int64", per_layer: bool = False,
) -> MemoryReport:  # fmt: skip
    """Count what pre-training holds.

    Parameters
    ----------
    config : sizes of the model; `LLAMAS` has those of the paper.
    method : "full", "low_rank" or "sltrain".
    r, delta : rank and density of the layers in the blocks.
    dtype : of weights, gradients and the moments of "adam": "float32" or "bfloat16".
    optimizer : "adam", or "adam8bit", whose moments take 1 + 4/256 bytes a number, or 4 in tensors below 4,096 numbers.
    index_dtype : "int64" or "int32".
    per_layer : whether only one tensor's gradient lives at a time.

    Returns
    -------
    MemoryReport.

    Raises
    ------
    ValueError : a word is unknown, or a value out of range.

    Source
    ------
    Han et al. 2024, arXiv 2406.02214, Section 5.1 and Appendix.
    """
    for name, value, choices in (
        ("method", method, METHODS), ("dtype", dtype, BYTES), ("optimizer", optimizer, OPTIMIZERS),
        ("index_dtype", index_dtype, ("int32", "int64")),
    ):  # fmt: skip
        check_choice(value, choices, function="memory_report", name=name)
    r = as_int(r, function="memory_report", name="r", low=1, high=config.width)
    delta, size = as_number(delta, function="memory_report", name="delta", above=0), BYTES[dtype]
    supports = [int(delta * m * n) for m, n in config.linear] if method == "sltrain" else []
    thin = [size for m, n in config.linear for size in (r * m, r * n)]
    inside = [m * n for m, n in config.linear] if method == "full" else thin + supports
    tensors = config.dense + inside
    count = sum(tensors)
    return MemoryReport(
        parameters=count, sparse=sum(supports), weights=size * count,
        indices=(8 if index_dtype == "int64" else 4) * sum(supports),
        gradients=size * (max(tensors) if per_layer else count),
        optimizer=2 * (size * count if optimizer == "adam" else sum(map(_eight_bit, tensors))),
    )  # fmt: skip


def _eight_bit(size):
    return size + 4 * -(-size // BLOCK) if size >= LEAST else 4 * size
