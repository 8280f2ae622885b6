"""Threads, fork and instruction sets of the core."""

import hashlib
import os
import subprocess
import sys
import threading

import pytest
from scipy import sparse

import kernels
from kernels import _native
from kernels.matmul.spgemm import spgemm

DIGESTS = """
import hashlib, numpy as np, kernels
from scipy import sparse
from kernels.matmul.spgemm import spgemm
rng = np.random.default_rng(3)
t = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(20, 20))
stencil = sparse.kron(sparse.eye_array(20), t) + sparse.kron(t, sparse.eye_array(20))
band = sparse.diags_array([rng.random(300) for _ in range(9)], offsets=range(-4, 5), shape=(300, 300))
loose = sparse.random_array((300, 300), density=0.05, rng=rng)
full = sparse.random_array((300, 300), density=0.5, rng=rng)
digest = hashlib.sha256()
for a in (stencil, band, loose, full):
    for dtype in (np.float32, np.float64):
        for index in (np.int32, np.int64):
            x = sparse.csr_array(a).astype(dtype)
            x = sparse.csr_array((x.data, x.indices.astype(index), x.indptr.astype(index)), shape=x.shape)
            x.data[0] = np.nan
            for method in ("auto", "dense", "hash", "smash-v1", "smash-v3", "merge", "inner", "outer"):
                c = spgemm(x, x, method=method)
                for part in (c.indptr, c.indices, np.nan_to_num(c.data, nan=-1.0)):
                    digest.update(part.tobytes())
print(kernels.isa(), digest.hexdigest())
"""


def levels_of_this_cpu():
    return _native.LEVELS[: _native.LEVELS.index(_native._native_baseline.cpu_level()) + 1]


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_every_instruction_set_gives_the_same_bits():
    answers = [run_python(DIGESTS, WORKBENCH_ISA=level) for level in levels_of_this_cpu()]
    assert [level for level, _ in answers] == list(levels_of_this_cpu())
    assert len({digest for _, digest in answers}) == 1


def test_unknown_instruction_set_is_refused():
    done = subprocess.run(
        [sys.executable, "-c", "import kernels"],
        env=os.environ | {"WORKBENCH_ISA": "mmx"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "WORKBENCH_ISA must be one of baseline, avx2, avx512; got 'mmx'" in done.stderr


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (257, ValueError), (True, TypeError), (2.0, TypeError), ("2", TypeError)]
)
def test_set_num_threads_refuses(n, error):
    before = kernels.get_num_threads()
    with pytest.raises(error, match="set_num_threads: n must be"):
        kernels.set_num_threads(n)
    assert kernels.get_num_threads() == before


def digest(c):
    return hashlib.sha256(c.indptr.tobytes() + c.indices.tobytes() + c.data.tobytes()).hexdigest()


def test_global_thread_count_changes_no_bit(rng):
    a = sparse.random_array((2000, 300), density=0.02, format="csr", rng=rng)
    b = sparse.random_array((300, 500), density=0.05, format="csr", rng=rng)
    before = kernels.get_num_threads()
    try:
        digests = set()
        for n in range(1, 6):
            kernels.set_num_threads(n)
            digests.add(digest(spgemm(a, b)))
        assert len(digests) == 1
    finally:
        kernels.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_pool_works_in_a_forked_child(rng):
    a = sparse.random_array((2000, 300), density=0.02, format="csr", rng=rng)
    want = digest(spgemm(a.T.tocsr(), a, num_threads=3))
    child = os.fork()
    if child == 0:
        same = digest(spgemm(a.T.tocsr(), a, num_threads=3)) == want
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_several_python_threads_at_once(rng):
    a = sparse.random_array((500, 500), density=0.05, format="csr", rng=rng)
    want, got = digest(spgemm(a, a)), []
    threads = [
        threading.Thread(target=lambda: got.extend(digest(spgemm(a, a, num_threads=2)) for _ in range(5)))
        for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == [want] * 20


@pytest.mark.slow
def test_peak_memory_is_the_result_and_little_more():
    code = """
import numpy as np, resource
from scipy import sparse
from kernels.matmul.spgemm import spgemm
rng = np.random.default_rng(1)
a = sparse.random_array((60_000, 3_000), density=0.01, format="csr", rng=rng)
b = sparse.random_array((3_000, 60_000), density=0.0005, format="csr", rng=rng)
spgemm(a[:10], b)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
c = spgemm(a, b, num_threads=2)
peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(peak / (c.data.nbytes + c.indices.nbytes + c.indptr.nbytes))
"""
    assert float(run_python(code)[0]) < 1.25
