"""What a machine model may know of a kernel: operation and byte counts from structure alone."""

from dataclasses import dataclass

__all__ = ["Work"]


@dataclass(frozen=True)
class Work:
    """Operations and least memory traffic of one kernel call.

    Parameters
    ----------
    flops : floating-point operations (a multiply and an add count as two).
    bytes_streamed : bytes read or written in sequence, each once (inputs and output).
    gathers : fine-grained accesses at data-dependent places, each a few bytes wide.
    """

    flops: int
    bytes_streamed: int
    gathers: int

    def __post_init__(self):
        for field in ("flops", "bytes_streamed", "gathers"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"Work: {field} must be an int of at least 0, got {value!r}")

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes_streamed + other.bytes_streamed, self.gathers + other.gathers)

    @property
    def intensity(self) -> float:
        """Flops per streamed byte (0 where nothing moves)."""
        return self.flops / self.bytes_streamed if self.bytes_streamed else 0.0
