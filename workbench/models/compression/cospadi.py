r"""CoSpaDi: every output of a linear layer becomes a combination of a few atoms that all outputs share.

.. math:: W^T \approx D S, \qquad \min_{D, S} \|X (W^T - D S)\|_F = \min_{D_L, S} \|R W^T - D_L S\|_F, \quad
          D = R^{-1} D_L, \quad R^T R = X^T X

W is (m, n), outputs by inputs; D has k atoms and S has s coefficients in each of its m columns. Whitening by the inputs
X turns the error of the outputs into that of a dictionary-learning problem, which K-SVD solves without any training.
With s = k it is the truncated SVD of SVD-LLM.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from scipy import linalg
from torch import nn

from kernels.check import as_int, as_number
from kernels.factor.codes import SparseCodes
from kernels.factor.ksvd import ksvd
from kernels.factor.svd import as_ratio, check_gram, check_matrix, rank_for_ratio
from kernels.factor.whitening import unwhiten, whiten
from workbench.models.compression.dictionary_linear import SparseDictLinear
from workbench.models.sparse_inference.sparse_linear import replace_linear
from workbench.models.sparse_inference.statistics import gather_statistics, linear_layers

__all__ = ["DictionaryFactors", "cospadi", "cospadi_compress", "cospadi_compress_group", "dictionary_factors",
           "solve_k_s", "trace"]  # fmt: skip

RHO = 2.0
MASK_BITS = 16  # of a stored value, in which the mask is counted
Report = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class DictionaryFactors:
    """A dictionary and the codes of one or more matrices that share it.

    Parameters
    ----------
    dictionary : float64 (n, k), atoms as columns, in the space of the weights.
    codes : SparseCodes of each matrix, one row for each of its outputs.
    history : float64, the relative error of the outputs on calibration data, after coding and after each sweep in turn.
    best : which entry of the history these factors have.
    jitter : what whitening added to the diagonal of the Gram matrix; 0 where it is positive definite.
    """

    dictionary: np.ndarray
    codes: tuple[SparseCodes, ...]
    history: np.ndarray
    best: int
    jitter: float

    def weights(self) -> list[np.ndarray]:
        """Return the matrices that the factors stand for, float64 (m, n) each."""
        return [each.as_csr() @ self.dictionary.T for each in self.codes]


def solve_k_s(cr, d1, d2, n_layers=1, rho=RHO, count_mask=False) -> tuple[int, int]:
    """Return how many atoms, and how many of them for each output, make a compression ratio.

    With c = 1 - cr: k' = c d1 d2 L / (d1 + d2 L / rho), k = floor(k'), s = floor(k' / rho). The values then take at
    most the share c of the dense ones.

    Parameters
    ----------
    cr : compression ratio, the share of the values that goes, in (0, 1).
    d1, d2 : inputs and outputs of a layer.
    n_layers : L, layers that share the dictionary.
    rho : k / s, at least 1.
    count_mask : whether a bit for every atom and output, which says where the coefficients belong, is paid from the
        same budget, in values of 16 bits; the denominator is then larger by d2 L / 16.

    Raises
    ------
    TypeError, ValueError : numbers out of range, or a ratio at which k or s would be 0.

    Source
    ------
    Makhov et al. 2025, and the code of its successor ROCKET.
    """
    name = "solve_k_s"
    kept = 1 - Fraction(str(as_ratio(cr, function=name)))
    d1 = as_int(d1, function=name, name="d1", low=1)
    outputs = as_int(d2, function=name, name="d2", low=1) * as_int(n_layers, function=name, name="n_layers", low=1)
    k, s = sizes_of(kept, d1, outputs, as_number(rho, function=name, name="rho", low=1), count_mask)
    if k < 1 or s < 1:
        raise ValueError(
            f"{name}: cr={cr} leaves k={k} atoms and s={s} of them for an output, both must be at least 1; ask for "
            "less compression, or take a smaller rho"
        )
    return k, s


def sizes_of(kept: Fraction, inputs: int, outputs: int, rho: float = RHO, count_mask: bool = False) -> tuple[int, int]:
    """Return k and s of a share of the values that stays, whatever they are; ``outputs`` of all layers together."""
    ratio = Fraction(str(rho))
    exact = kept * inputs * outputs / (inputs + outputs / ratio + (Fraction(outputs, MASK_BITS) if count_mask else 0))
    return int(exact), int(exact / ratio)


def dictionary_factors(
    weights: Sequence[np.ndarray],
    gram: np.ndarray | None,
    k: int,
    s: int,
    *,
    iters: int = 60,
    power_iters: int = 8,
    init: str = "auto",
    seed: int = 0,
    precision: Any = np.float32,
    callback: Callable[[int, str, float], object] | None = None,
) -> DictionaryFactors:
    """Learn a dictionary for the outputs of one or more matrices.

    Parameters
    ----------
    weights : (m, n) float matrices of one width n.
    gram : (n, n), X^T X of their inputs, or the sum of those of each; None for the error of the weights themselves.
    k, s : atoms, and atoms of an output.
    iters, power_iters, init, seed, callback : of `kernels.factor.ksvd.ksvd`.
    precision : np.float32 or np.float64, in which atoms are chosen and fitted; whitening is in float64.

    Raises
    ------
    TypeError, ValueError : as `ksvd` and `whiten`; matrices that are not finite, or of other widths.
    """
    name = "dictionary_factors"
    for w in weights:
        check_matrix(w, function=name)
        if w.shape[1] != weights[0].shape[1]:
            raise ValueError(f"{name}: weights must have one number of inputs, got {[x.shape for x in weights]}")
    if not weights:
        raise ValueError(f"{name}: weights must hold at least one matrix")
    if precision not in (np.float32, np.float64):
        raise ValueError(f"{name}: precision must be np.float32 or np.float64, got {precision!r}")
    columns, jitter, factor = np.concatenate(weights).T.astype(np.float64), 0.0, None
    if gram is not None:
        check_gram(weights[0], gram, function=name)
        whitening = whiten(gram)
        factor, jitter = whitening.factor, whitening.jitter
        columns = factor @ columns
    how = {"iters": iters, "power_iters": power_iters, "init": init, "seed": seed, "callback": callback}
    found = ksvd(columns.astype(precision, copy=False), k, s, **how)
    dictionary = found.dictionary.astype(np.float64)
    return DictionaryFactors(
        dictionary=dictionary if factor is None else unwhiten(factor, dictionary),
        codes=tuple(_parts(found.codes, [len(w) for w in weights])),
        history=found.history,
        best=found.best,
        jitter=jitter,
    )


def cospadi_compress(
    weight, gram, cr, *, rho=RHO, iters=60, power_iters=8, count_mask=False, bias=None, seed=0, callback=None
) -> SparseDictLinear:
    """Return a layer on sparse kernels in place of a weight matrix.

    Parameters
    ----------
    weight : (m, n) tensor or array, outputs by inputs, as of ``torch.nn.Linear``.
    gram : (n, n), X^T X of the layer's inputs, as `gather_statistics` returns it; None compresses the weights alone.
    cr, rho, count_mask : of `solve_k_s`.
    iters, power_iters, seed, callback : of `kernels.factor.ksvd.ksvd`.
    bias : (m,) tensor or None.

    Raises
    ------
    TypeError, ValueError : as `solve_k_s` and `dictionary_factors`.

    Cost
    ----
    For a 384 x 1536 layer, k = 256 and s = 128, some 0.4 s for each iteration on one core.

    Source
    ------
    Makhov et al. 2025. *Differs from the paper:* the best of all iterations is kept, not the last one.
    """
    how = {"rho": rho, "iters": iters, "power_iters": power_iters, "count_mask": count_mask, "seed": seed}
    return cospadi_compress_group([weight], [gram], cr, biases=[bias], callback=callback, **how)[0]


def cospadi_compress_group(
    weights, grams, cr, *, rho=RHO, iters=60, power_iters=8, count_mask=False, biases=None, seed=0, callback=None
) -> list[SparseDictLinear]:
    """Return layers that share one dictionary, in place of several weight matrices of one shape.

    Parameters
    ----------
    weights : (m, n) each, all of one shape.
    grams : X^T X of the inputs of each; they are summed, which is exact where the inputs are the same, as those of
        query, key and value are. None for each, to compress the weights alone.
    others : as for `cospadi_compress`, with ``biases`` for ``bias``.
    """
    name = "cospadi_compress_group"
    matrices = [_matrix(w) for w in weights]
    for w in matrices:
        check_matrix(w, function=name)
    if len({w.shape for w in matrices}) != 1:
        raise ValueError(f"{name}: weights must be matrices of one shape, got {[w.shape for w in matrices]}")
    if len(grams) != len(matrices) or len({g is None for g in grams}) != 1:
        raise ValueError(f"{name}: grams must be one for each of the {len(matrices)} weights, or None for each")
    for w, g in zip(matrices, grams, strict=True):
        if g is not None:
            check_gram(w, g, function=name)
    m, n = matrices[0].shape
    k, s = solve_k_s(cr, n, m, len(matrices), rho, count_mask)
    gram = None if grams[0] is None else np.sum([g.astype(np.float64) for g in grams], axis=0)
    how = {"iters": iters, "power_iters": power_iters, "seed": seed, "callback": callback}
    found = dictionary_factors(matrices, gram, k, s, **how)
    return SparseDictLinear.sharing(found.dictionary, found.codes, biases or [None] * len(matrices))


def cospadi(
    model: nn.Module,
    batches: Iterable[Any],
    cr: float = 0.3,
    *,
    rho: float = RHO,
    iters: int = 3,
    power_iters: int = 8,
    count_mask: bool = False,
    layers: Iterable[str] | None = None,
    groups: Iterable[Sequence[str]] = (),
    forward: Callable[[nn.Module, Any], Any] | None = None,
    seed: int = 0,
    report: Report = lambda fraction, step: None,
) -> nn.Module:
    """Return a copy of a model whose linear layers are made of dictionaries and sparse coefficients.

    Parameters
    ----------
    model : any module with torch.nn.Linear layers; left as it is.
    batches : calibration data, what ``model(batch)`` takes.
    cr, rho, count_mask : of `solve_k_s`, the same for every layer.
    iters, power_iters, seed : of `kernels.factor.ksvd.ksvd`; 60 in the paper, of which a few give most.
    layers : names; None for those that `linear_layers` chooses.
    groups : names of layers of one shape that share a dictionary, such as those of query, key and value.
    forward : ``forward(model, batch)`` in place of ``model(batch)``.
    report : ``report(fraction, step)`` as the work goes on; it may raise to stop it.

    Returns
    -------
    nn.Module to put in the model's place, for inference. `workbench.models.layer_files` keeps it in a file.

    Raises
    ------
    KeyError : a name that is no linear layer. ValueError : numbers out of range, a layer in two groups, or one that
        saw no input.

    Examples
    --------
    ``small = cospadi(model, batches, cr=0.3)``
    """
    found = linear_layers(model, layers)
    together = [tuple(group) for group in groups]
    named = [name for group in together for name in group]
    if len(set(named)) != len(named) or not set(named) <= set(found):
        wrong = next((name for name in named if named.count(name) > 1 or name not in found), "")
        raise ValueError(
            f"cospadi: groups must name each compressed layer at most once; {wrong!r} is named twice or is not among "
            "the layers"
        )
    together += [(name,) for name in found if name not in named]
    report(0.0, "run the model on calibration data")
    known = gather_statistics(model, batches, layers=found, forward=forward)
    made: dict[str, nn.Module] = {}
    for i, group in enumerate(together):
        report(0.1 + 0.9 * i / len(together), f"learn the dictionary of {', '.join(group)}")
        each = [found[name] for name in group]
        new = cospadi_compress_group(
            [layer.weight for layer in each], [known[name].gram for name in group], cr, rho=rho, iters=iters,
            power_iters=power_iters, count_mask=count_mask, biases=[layer.bias for layer in each], seed=seed,
        )  # fmt: skip
        made |= dict(zip(group, new, strict=True))
    return replace_linear(copy.deepcopy(model).eval(), made)


def trace(weight, gram, cr, *, rho=RHO, iters=3, power_iters=8, count_mask=False, seed=0) -> dict[str, Any]:
    """Return what a view shows of one compressed matrix, as plain arrays.

    Parameters
    ----------
    weight, gram, cr, rho, iters, power_iters, count_mask, seed : of `cospadi_compress`.

    Returns
    -------
    "weight", "approximation" : (m, n); "dictionary" (n, k); "coefficients" (k, m), zero where an atom is not used;
    "uses" (k,), outputs of each atom; "spectrum" and "residual_spectrum", the singular values of the whitened matrix
    and of what is left of it; "history" and "best" of the factors; "rank" and "svd_error", those of SVD-LLM with as
    many values; "k" and "s".
    """
    w = _matrix(weight).astype(np.float64)
    k, s = solve_k_s(cr, w.shape[1], w.shape[0], 1, rho, count_mask)
    found = dictionary_factors([w], gram, k, s, iters=iters, power_iters=power_iters, seed=seed)
    root = np.eye(w.shape[1]) if gram is None else whiten(gram).factor
    approximation, coefficients = found.weights()[0], found.codes[0].as_csr().toarray().T
    spectrum = linalg.svdvals(root @ w.T)
    rank = rank_for_ratio(cr, w.shape)
    return {
        "weight": w,
        "approximation": approximation,
        "dictionary": found.dictionary,
        "coefficients": coefficients,
        "uses": np.count_nonzero(coefficients, axis=1),
        "spectrum": spectrum,
        "residual_spectrum": linalg.svdvals(root @ (w - approximation).T),
        "history": found.history,
        "best": found.best,
        "rank": rank,
        "svd_error": float(np.linalg.norm(spectrum[rank:]) / np.linalg.norm(spectrum)),
        "k": k,
        "s": s,
    }


def _matrix(weight) -> np.ndarray:
    """Return a weight as a float32 or float64 array."""
    if isinstance(weight, torch.Tensor):
        weight = weight.detach()
        return (weight if weight.dtype == torch.float64 else weight.float()).numpy()
    return weight


def _parts(codes, heights):
    """Cut the codes of matrices that lie one below the other."""
    ends = np.cumsum(heights)
    for start, stop in zip(ends - heights, ends, strict=True):
        at = slice(int(start), int(stop))
        yield replace(codes, indices=codes.indices[at], values=codes.values[at], counts=codes.counts[at])
