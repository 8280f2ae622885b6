"""Threads, fork and instruction sets of the core."""

import hashlib
import os
import subprocess
import sys
import threading
from itertools import product

import numpy as np
import pytest
from scipy import sparse

import kernels
from kernels.matmul.spgemm import spgemm


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_instruction_set_gives_the_same_bits(levels, use_level):
    rng = np.random.default_rng(3)
    t = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(20, 20))
    stencil = sparse.kron(sparse.eye_array(20), t) + sparse.kron(t, sparse.eye_array(20))
    band = sparse.diags_array([rng.random(300) for _ in range(9)], offsets=range(-4, 5), shape=(300, 300))
    loose = sparse.random_array((300, 300), density=0.05, rng=rng)
    full = sparse.random_array((300, 300), density=0.5, rng=rng)
    answers = []
    for level in levels:
        use_level(level)
        answers.append({})
        for a, dtype, index in product((stencil, band, loose, full), (np.float32, np.float64), (np.int32, np.int64)):
            x = sparse.csr_array(a).astype(dtype)
            x = sparse.csr_array((x.data, x.indices.astype(index), x.indptr.astype(index)), shape=x.shape)
            x.data[0] = np.nan
            for method in ("auto", "dense", "hash", "smash-v1", "smash-v3", "merge", "inner", "outer"):
                c = spgemm(x, x, method=method)
                c.data[np.isnan(c.data)] = -1  # NaN has many bit patterns
                answers[-1][x.nnz, dtype, index, method] = digest(c)
    assert all(found == answers[0] for found in answers) and len(answers[0]) == 4 * 2 * 2 * 8


def test_a_process_takes_the_instruction_set_that_it_is_told(levels):
    code = "import kernels; from kernels import _native; print(kernels.isa(), _native.core.__name__)"
    for level in levels:
        assert run_python(code, WORKBENCH_ISA=level) == [level, f"kernels._native_{level}"]
    assert run_python(code, WORKBENCH_ISA="")[0] == levels[-1]


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
