"""The mask of the k largest scores against NumPy and torch: magnitudes of normal weights, half of them kept.

Peers that return a threshold get the comparison that makes a mask of it; of equal scores they keep all, of which
random weights have few. torch.topk gives places, which are written into the mask.
"""

from functools import cache, partial

import numpy as np

from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Peer

# rows, columns: one row is an array as a whole; then rows of a weight matrix, and groups of n:m masks
QUICK = ((1, 2**20), (1536, 384))
SUITE = ((1, 2**20), (1, 2**24 + 3), (1536, 384), (4096, 4096), (8192, 64), (147_456, 4))
DTYPES = {"f32": np.float32, "f64": np.float64}


@cache
def _load_torch():
    import torch

    return torch


def _ours(scores, k):
    from kernels.masks.threshold import topk_mask

    return partial(topk_mask, scores, k, axis=-1)


def _partition(scores, k):
    at = scores.shape[1] - k
    return lambda: scores >= np.partition(scores, at, axis=1)[:, at : at + 1]


def _topk(scores, k):
    torch = _load_torch()
    values = torch.from_numpy(scores)

    def run():
        places = values.topk(k, dim=1, sorted=False).indices
        return torch.zeros(values.shape, dtype=torch.bool).scatter_(1, places, True).numpy()

    return run


def _kthvalue(scores, k):
    values, at = _load_torch().from_numpy(scores), scores.shape[1] - k + 1
    return lambda: (values >= values.kthvalue(at, dim=1, keepdim=True).values).numpy()


CONTENDERS = {"NumPy partition": _partition, "torch topk": _topk, "torch kthvalue": _kthvalue}
PEERS = (
    Peer("NumPy partition", lambda: None, "pip install numpy"),
    Peer("torch topk", _load_torch, "pip install torch==2.13.0"),
    Peer("torch kthvalue", _load_torch, "pip install torch==2.13.0"),
)


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)
    _load_torch().set_num_threads(threads)


def _checker(scores, k):
    kth = np.sort(scores, axis=1)[:, scores.shape[1] - k, None]

    def check(name, mask):
        if mask.shape != scores.shape or mask.dtype != np.bool_:
            raise ValueError(f"mask is {mask.shape} {mask.dtype}, wanted {scores.shape} bool")
        wrong = (mask & (scores < kth)) | (~mask & (scores > kth))
        if wrong.any():
            raise ValueError(f"{int(wrong.sum()):,} scores are on the wrong side of the threshold")
        if name == "ours" and (mask.sum(axis=1) != k).any():
            raise ValueError(f"a row does not keep {k} scores")

    return check


def _build(shape, dtype, threads, loaded):
    scores = np.abs(np.random.default_rng(0).standard_normal(shape, DTYPES[dtype]))
    k = shape[1] // 2
    contenders = [Contender("ours", _ours(scores, k), threads, ours=True)]
    contenders += [
        Contender(name, CONTENDERS[name](scores, k), 1 if name == "NumPy partition" else threads) for name in loaded
    ]
    return Case(
        work=float(scores.size),
        work_unit="score",
        contenders=tuple(contenders),
        check=_checker(scores, k),
        bytes=float(scores.nbytes + scores.size),
        dtype=scores.dtype.name,
        facts={"rows": shape[0], "columns": shape[1], "k": k},
        result_bytes=scores.size,
    )


def _specs(quick, threads, loaded):
    return [
        CaseSpec(
            f"{rows}x{columns}/{dtype}",
            f"{dtype}, {'whole array' if rows == 1 else 'rows'}",
            partial(_build, (rows, columns), dtype, threads, tuple(loaded)),
        )
        for dtype in DTYPES
        for rows, columns in (QUICK if quick or dtype == "f64" else SUITE)
    ]


BENCH = Bench(key="topk", title="The mask of the k largest scores", peers=PEERS, specs=_specs, set_threads=_set_threads)
