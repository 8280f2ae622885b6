"""Skinny SpMM against dense torch, MKL, torch CSR and SciPy: pruned half-precision weights times few columns.

The shapes are linear layers of an OPT of thirty billion parameters (a quarter of it each way) and of a LLaMA of seven
billion, with 1 to 32 columns, as when a language model writes word by word; weights are kept at random places. Ours
reads 4 bytes a weight (Tiled-CSL, words row by row), CSR 8, the dense matrix 4 for every place, or 2 in bfloat16: that
contender computes in another precision, and its results may be as far off as that allows.
"""

from functools import partial

import numpy as np
import scipy.sparse as sp

from workbench.bench import spmm
from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

BF16 = "torch dense bf16"
TOLERANCE = {BF16: 2e-2}  # of the largest result; others as float32 allows
SPARSITIES = (70, 80, 90)
COLUMNS = (1, 8, 16, 32)
QUICK = ((2048, 2048),)
SUITE = ((7168, 1792), (4096, 4096), (4096, 11008), (11008, 4096))


def _bf16(a, b):
    torch = spmm.PEERS[0].load()
    full, right = torch.from_numpy(a.toarray()).bfloat16(), torch.from_numpy(b).bfloat16()
    return lambda: (full @ right).float().numpy()


def _load_bf16():
    torch = spmm.PEERS[0].load()
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        raise ImportError("torch computes bfloat16 element by element without AVX-512, hundreds of times slower")
    return torch


CONTENDERS = spmm.CONTENDERS | {BF16: _bf16}
PEERS = (spmm.PEERS[0], Peer(BF16, _load_bf16, "a CPU with AVX-512"), *spmm.PEERS[1:])


def checker(a, b):
    """Return a check of results of ``a @ b`` against float64, with the tolerance of the contender's precision."""
    want = a.astype(np.float64) @ b.astype(np.float64)
    scale = float(np.abs(want).max(initial=1.0))

    def check(name, result):
        if result.shape != want.shape or result.dtype != np.float32:
            raise ValueError(f"result is {result.shape} {result.dtype}, wanted {want.shape} float32")
        worst, allowed = float(np.abs(result - want).max(initial=0.0)) / scale, TOLERANCE.get(name, 1e-5)
        if not worst <= allowed:
            raise ValueError(f"values differ from float64 by {worst:.1e}, tolerance {allowed:.0e}")

    return check


def case_of(ours, packed_bytes, a, b, threads, loaded) -> Case:
    """Return the case of ``ours()`` against the peers on ``a @ b``; ``packed_bytes`` is what our form of a takes."""
    contenders = [Contender("ours", ours, threads, ours=True)]
    contenders += [Contender(name, CONTENDERS[name](a, b), 1 if name == "SciPy" else threads) for name in loaded]
    (m, k), n = a.shape, b.shape[1]
    return Case(
        work=2.0 * a.nnz * n,
        work_unit="flop",
        contenders=tuple(contenders),
        check=checker(a, b),
        flops=2.0 * a.nnz * n,
        bytes=float(packed_bytes + b.nbytes + 4 * m * n),
        dtype="float32",
        facts={"m": m, "k": k, "n": n, "nnz": a.nnz},
        result_bytes=4 * m * n,
    )


def _build(shape, n, sparsity, threads, loaded):
    from kernels.formats.tiled_csl import TiledCSL
    from kernels.matmul.skinny_spmm import skinny_spmm

    w = spmm.weights(*shape, sparsity, "f32").toarray().astype(np.float16)
    b = np.random.default_rng(1).standard_normal((shape[1], n)).astype(np.float32)
    tiles = TiledCSL.encode(w, tile_k=512, reorder=False, pad=True)
    return case_of(partial(skinny_spmm, tiles, b), tiles.nbytes, sp.csr_array(w.astype(np.float32)), b, threads, loaded)


def _specs(quick, threads, loaded):
    return [
        CaseSpec(
            f"{m}x{k}x{n}/{sparsity}",
            f"{sparsity} per cent gone",
            partial(_build, (m, k), n, sparsity, threads, tuple(loaded)),
        )
        for sparsity in SPARSITIES
        for m, k in (QUICK if quick else SUITE)
        for n in COLUMNS
    ]


BENCH = Bench(
    key="skinny_spmm",
    title="Pruned weights (Tiled-CSL) times few columns",
    peers=PEERS,
    specs=_specs,
    set_threads=spmm.BENCH.set_threads,
    own_process=True,
    goals=(
        Goal("80 per cent gone", "torch dense", 3.0),
        *(
            Goal(f"{sparsity} per cent gone", peer, 2.0)
            for sparsity in SPARSITIES
            for peer in ("MKL", "torch CSR", "SciPy")
        ),
    ),
)
