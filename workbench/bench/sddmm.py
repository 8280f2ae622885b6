"""SDDMM against dense torch and torch's own: products of rows of two dense matrices at the entries of a random pattern.

The shapes are the scores of sparse attention over 2,048 tokens, and the gradients of the sparse weights of BERT-base
for 256 and 768 tokens. The dense contender computes every product and picks those of the pattern, whose flat places it
was given beforehand.
"""

from functools import partial

import numpy as np

from workbench.bench import spmm
from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

TOLERANCE = 1e-5
DENSITIES = (1, 10, 30)
QUICK = ((768, 768, 256),)
SUITE = ((2048, 2048, 64), (768, 3072, 256), (768, 768, 768))


def _ours(pattern, x, y):
    from kernels.matmul.sddmm import sddmm

    return lambda: sddmm(pattern, x, y).data


def _dense(pattern, x, y):
    torch = spmm.PEERS[0].load()
    left, right = torch.from_numpy(x), torch.from_numpy(y).t()
    rows, columns = pattern.nonzero()
    places = torch.from_numpy(rows.astype(np.int64) * pattern.shape[1] + columns)
    return lambda: torch.mm(left, right).view(-1)[places].numpy()


def _sampled(pattern, x, y):
    torch = spmm.PEERS[0].load()
    parts = (pattern.indptr, pattern.indices, np.zeros_like(pattern.data))
    zeros = torch.sparse_csr_tensor(*map(torch.from_numpy, parts), size=pattern.shape)
    left, right = torch.from_numpy(x), torch.from_numpy(y).t()
    return lambda: torch.sparse.sampled_addmm(zeros, left, right, beta=0.0).values().numpy()


CONTENDERS = {"torch dense, then picked": _dense, "torch sampled_addmm": _sampled}
PEERS = tuple(Peer(name, spmm.PEERS[0].load, spmm.PEERS[0].cure) for name in CONTENDERS)


def _checker(pattern, x, y):
    want = np.asarray((x.astype(np.float64) @ y.astype(np.float64).T)[pattern.nonzero()])
    scale = float(np.abs(want).max(initial=1.0))

    def check(name, result):
        if result.shape != want.shape or result.dtype != np.float32:
            raise ValueError(f"result is {result.shape} {result.dtype}, wanted {want.shape} float32")
        worst = float(np.abs(result - want).max(initial=0.0)) / scale
        if not worst <= TOLERANCE:
            raise ValueError(f"values differ from float64 by {worst:.1e}, tolerance {TOLERANCE:.0e}")

    return check


def _build(shape, density, threads, loaded):
    m, n, d = shape
    pattern = spmm.weights(m, n, 100 - density, "f32")
    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal((rows, d)).astype(np.float32) for rows in (m, n))
    contenders = [Contender("ours", _ours(pattern, x, y), threads, ours=True)]
    contenders += [Contender(name, CONTENDERS[name](pattern, x, y), threads) for name in loaded]
    flops = 2.0 * pattern.nnz * d
    return Case(
        work=flops,
        work_unit="flop",
        contenders=tuple(contenders),
        check=_checker(pattern, x, y),
        flops=flops,
        bytes=float(pattern.indices.nbytes + pattern.indptr.nbytes + x.nbytes + y.nbytes + 4 * pattern.nnz),
        dtype="float32",
        facts={"m": m, "n": n, "d": d, "nnz": pattern.nnz},
        result_bytes=4 * pattern.nnz,
    )


def _specs(quick, threads, loaded):
    return [
        CaseSpec(
            f"{'x'.join(map(str, shape))}/{density}",
            f"{density} per cent kept",
            partial(_build, shape, density, threads, tuple(loaded)),
        )
        for density in DENSITIES
        for shape in (QUICK if quick else SUITE)
    ]


BENCH = Bench(
    key="sddmm",
    title="Products of rows at the entries of a pattern",
    peers=PEERS,
    specs=_specs,
    set_threads=spmm.BENCH.set_threads,
    own_process=True,
    goals=(Goal("10 per cent kept", "best", 1.5),),
)
