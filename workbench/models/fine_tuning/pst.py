r"""PST: a frozen weight is pruned while it is tuned, and thin factors decide both what it becomes and what goes.

.. math:: W = W_0 + \beta\, U V, \qquad S = |W| + \alpha_1\, A B + \alpha_2\, (R\, 1^T + 1\, C^T), \qquad
          y = (M \circ W)\, x + b

W_0 is (m, n), U (m, r_1), V (r_1, n), A (m, r_2), B (r_2, n), R (m), C (n). At first V, B, R and C are zero, so that
magnitudes alone decide. With G the gradient with respect to M o W,

.. math:: \partial L / \partial S = G \circ W, \qquad
          \partial L / \partial W = G \circ M \; [\, + \; G \circ |W| \,]

where the last term comes from the magnitudes inside S: it is part of the released code.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from kernels.check import as_int, as_ints, as_number
from kernels.formats.storage import bitmap_bits, csr_bits, whole_bytes
from workbench.models.fine_tuning.masked_linear import MaskedLinear, apply_masked, cubic_sparsity
from workbench.models.fine_tuning.method import TuningMethod

__all__ = ["PSTLinear", "PruningMemory", "memory_report", "score_structure"]


class PSTLinear(MaskedLinear):
    """A frozen layer with factors that change its weight and say which of its weights take part.

    Parameters
    ----------
    base : the layer; frozen, and shared.
    r_weight, r_score : ranks of U V and of A B, from 0 on; 0 leaves the product out.
    beta, a1, a2 : weights of U V, of A B, and of R and C, at least 0; 0 leaves the part out, with its parameters.
    score_grad_to_weight : whether the gradient of the scores goes on to the weight through its magnitude, as in the
        released code; otherwise the magnitude stands still there.
    how : ``memory_efficient`` and ``sparsity`` of `MaskedLinear`.

    Source
    ------
    Li et al. 2022, "PST", and its released code.
    """

    def __init__(
        self, base: nn.Linear, r_weight: int = 8, r_score: int = 8, beta: float = 1.0, a1: float = 1.0, a2: float = 1.0,
        score_grad_to_weight: bool = True, **how,
    ):  # fmt: skip
        super().__init__(base, **how)
        name = "PSTLinear"
        ranks = (
            as_int(r, function=name, name=what, low=0) for r, what in ((r_weight, "r_weight"), (r_score, "r_score"))
        )
        self.beta, self.a1, self.a2 = (
            as_number(x, function=name, name=what, low=0) for x, what in ((beta, "beta"), (a1, "a1"), (a2, "a2"))
        )
        r1, r2 = (r if weight else 0 for r, weight in zip(ranks, (self.beta, self.a1), strict=True))
        self.score_grad_to_weight = bool(score_grad_to_weight)
        self.weight = base.weight.requires_grad_(False)
        m, n, dtype = base.out_features, base.in_features, base.weight.dtype

        def factors(r):
            first, second = torch.randn(m, r, dtype=dtype), torch.zeros(r, n, dtype=dtype)
            return (nn.Parameter(first), nn.Parameter(second)) if r else (None, None)

        self.U, self.V = factors(r1)
        self.A, self.B = factors(r2)
        self.R, self.C = (nn.Parameter(torch.zeros(k, dtype=dtype)) if self.a2 else None for k in (m, n))

    def parts(self):
        """Return the frozen weight and the factors; None for those that there are not."""
        return self.weight, self.U, self.V, self.A, self.B, self.R, self.C

    def begin(self) -> torch.Tensor:
        """Return the frozen weight, (m, n)."""
        return self.weight

    def weight_of(self, *parts):
        """Return W_0 + beta U V."""
        frozen, U, V = parts[:3]
        return frozen if U is None else frozen + self.beta * (U @ V)

    def scores_of(self, weight, *parts):
        """Return the magnitudes, the product and the stripes, added up."""
        return sum(_terms(self, weight if self.score_grad_to_weight else weight.detach(), *parts).values())

    def gradients_of(self, gradient, weight, mask, *parts):
        """Return the gradients of the factors."""
        _, U, V, A, B, R, _ = parts
        to_scores = gradient * weight
        to_U = to_V = to_A = to_B = to_R = to_C = None
        if U is not None:
            to_weight = gradient * mask
            if self.score_grad_to_weight:
                to_weight += to_scores * weight.sign()
            to_weight *= self.beta
            to_U, to_V = to_weight @ V.T, U.T @ to_weight
        if A is not None:
            to_product = self.a1 * to_scores
            to_A, to_B = to_product @ B.T, A.T @ to_product
        if R is not None:
            to_R, to_C = self.a2 * to_scores.sum(1), self.a2 * to_scores.sum(0)
        return None, to_U, to_V, to_A, to_B, to_R, to_C

    @torch.no_grad()
    def trace(self) -> dict[str, np.ndarray]:
        """Return what the scores are made of: "magnitude", "low_rank", "stripes", their sum "scores", and "mask".

        Each is (m, n) in the dtype of the weight, the mask bool; zero where a part is left out.
        """
        weight = self.weight_of(*self.parts())
        terms = _terms(self, weight, *self.parts())
        named = {
            name: terms.get(name, torch.zeros_like(weight)).numpy() for name in ("magnitude", "low_rank", "stripes")
        }
        return named | {"scores": self.scores().numpy(), "mask": self.mask().numpy()}


def _terms(layer, weight, *parts) -> dict[str, torch.Tensor]:
    """Return the parts that the scores are the sum of."""
    A, B, R, C = parts[3:]
    terms = {"magnitude": weight.abs()}
    if A is not None:
        terms["low_rank"] = layer.a1 * (A @ B)
    if R is not None:
        terms["stripes"] = layer.a2 * (R[:, None] + C[None, :])
    return terms


def score_structure(S, r: int = 8) -> dict[str, float]:
    r"""Return how much of a matrix of scores thin factors and stripes can say.

    Parameters
    ----------
    S : (m, n), finite, with an entry that is not zero.
    r : rank, from 0 to min(m, n).

    Returns
    -------
    ``rank_energy``, the share of the sum of squares that the best matrix of rank r has; ``rowcol_r2``, the share of the
    variance that a number for each row and one for each column explain, 0 where all scores are equal; ``joint``, the
    share of the sum of squares that both together have at best.

    Raises
    ------
    TypeError, ValueError : not such a matrix, or a rank out of range.

    Notes
    -----
    The best sum of stripes and a product of rank r has the means of rows and columns, and the r strongest singular
    values of what is left, in which both sums of rows and of columns are zero.

    Source
    ------
    Li et al. 2022, "PST", the two findings behind A B and R + C, which the paper shows in pictures; measures are ours.
    """
    name = "score_structure"
    values = np.asarray(S.detach().double() if isinstance(S, torch.Tensor) else S, np.float64)
    if values.ndim != 2 or not values.any() or not np.isfinite(values).all():
        raise ValueError(f"{name}: S must be (m, n), finite and not zero throughout, got shape {values.shape}")
    r = as_int(r, function=name, name="r", low=0, high=min(values.shape))
    total, middle = np.square(values).sum(), values.mean()
    stripes = values.mean(1, keepdims=True) + values.mean(0, keepdims=True) - middle
    left, around = values - stripes, values - middle
    variance = np.square(around).sum()
    varies = variance > np.finfo(np.float64).eps * total  # beyond what rounding alone makes
    strongest = np.square(np.linalg.svd(values, compute_uv=False)[:r]).sum()
    weaker = np.square(np.linalg.svd(left, compute_uv=False)[r:]).sum()
    return {
        "rank_energy": float(strongest / total),
        "rowcol_r2": float(1 - np.square(left).sum() / variance) if varies else 0.0,
        "joint": float(1 - weaker / total),
    }


@dataclass(frozen=True, kw_only=True)
class PruningMemory:
    """What pruning while tuning costs, counted from sizes alone.

    Parameters
    ----------
    trainable : numbers that are trained.
    weights, gradients, optimizer : bytes of weights with scores and factors, of their gradients, and of Adam's state.
    saved : bytes that the layers keep for the backward pass, beside what is a parameter.
    sorting : bytes that sorting the largest layer would hold meanwhile; selecting by the kernel holds none of them.
    csr, bitmap : bytes of the pruned weights in either format, with indices of 32 bits.
    """

    trainable: int
    weights: int
    gradients: int
    optimizer: int
    saved: int
    sorting: int
    csr: int
    bitmap: int


def memory_report(
    shapes: Mapping[str, tuple[int, int]], *, tokens: int, sparsity: float = 0.9, r_weight: int = 8, r_score: int = 8,
    value_bytes: int = 4, memory_efficient: bool = True,
) -> dict[str, PruningMemory]:  # fmt: skip
    """Return what each kind of layer costs: "magnitude", "movement" and "pst".

    Parameters
    ----------
    shapes : name of a layer -> (m, n), none of them empty.
    tokens : rows of a layer's input, the same for all.
    sparsity : of the layers afterwards, in [0, 1).
    r_weight, r_score : ranks of PST.
    value_bytes : of a number, such as 4 for float32.
    memory_efficient : of the layers.

    Raises
    ------
    TypeError, ValueError : no layer, or sizes out of range.

    Source
    ------
    Counts of the layers here, which tests compare with what autograd keeps. *Differs from the released code:* nothing
    is kept of a product before it is scaled, 2 r m numbers there.
    """
    name = "memory_report"
    sizes = [as_ints(shape, 2, function=name, name=f"shapes[{key!r}]", low=1) for key, shape in shapes.items()]
    if not sizes:
        raise ValueError(f"{name}: shapes must hold a layer")
    tokens = as_int(tokens, function=name, name="tokens", low=0)
    b = as_int(value_bytes, function=name, name="value_bytes", low=1, high=8)
    r1, r2 = (as_int(r, function=name, name=w, low=0) for r, w in ((r_weight, "r_weight"), (r_score, "r_score")))
    cubic_sparsity(1, 1, sf=sparsity)  # refuses what is no sparsity
    entries, inputs = sum(m * n for m, n in sizes), tokens * sum(n for _, n in sizes)
    factors = sum((r1 + r2) * (m + n) + m + n for m, n in sizes)
    bits = sum((m * n + 7) // 8 for m, n in sizes)
    # trained numbers, frozen ones, and copies of the weights that autograd keeps: the mask, M o W, and W if not trained
    kinds = {"magnitude": (entries, 0, 2), "movement": (2 * entries, 0, 2), "pst": (factors, entries, 3)}
    kept = [(shape, shape[0] * shape[1] - int(shape[0] * shape[1] * sparsity)) for shape in sizes]
    csr, bitmap = (
        sum(whole_bytes(count(shape, nnz, value_bits=8 * b, **more)) for shape, nnz in kept)
        for count, more in ((csr_bits, {"index_bits": 32}), (bitmap_bits, {}))
    )
    return {
        kind: PruningMemory(
            trainable=trained,
            weights=b * (trained + frozen),
            gradients=b * trained,
            optimizer=2 * b * trained,
            saved=b * inputs + (bits if memory_efficient else copies * b * entries),
            sorting=8 * max(m * n for m, n in sizes),
            csr=csr,
            bitmap=bitmap,
        )
        for kind, (trained, frozen, copies) in kinds.items()
    }


METHOD = TuningMethod(
    key="pst", title="PST", apply=lambda model, layers, **knobs: apply_masked(model, layers, PSTLinear, **knobs),
    knobs={"r_weight": 8, "r_score": 8, "beta": 1.0, "a1": 1.0, "a2": 1.0, "score_grad_to_weight": True, "sf": 0.9,
           "iw": 0.1, "fw": 0.3, "s0": 0.0, "memory_efficient": True},
    source="Li et al. 2022, arXiv 2205.11005",
)  # fmt: skip
