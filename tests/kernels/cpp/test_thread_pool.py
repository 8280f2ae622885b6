"""The pool of threads when something fails: memory, threads that do not start, a process that ends under a kernel."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

import kernels
from kernels.matmul.spgemm import row_flops, spgemm, symbolic_nnz
from kernels.matmul.traffic import dataflow_traffic
from kernels.raster import bin_edges, block_density, raster

own_memory = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="the address sanitizer ends the process for want of memory"
)


def wide(columns, entries=((0, 5), (1, 5), (1, 77))):
    rows, places = np.array(entries).T
    return sparse.csr_array((np.ones(len(rows)), (rows, places.astype(np.int64))), shape=(2, columns))


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


@own_memory
@pytest.mark.parametrize("columns", [2**40, 2**61])
@pytest.mark.parametrize("method", ["dense", "gustavson-dense"])
def test_what_does_not_fit_is_a_memory_error_and_the_next_call_is_right(rng, columns, method):
    x = sparse.random_array((40, 40), density=0.5, format="csr", rng=rng)
    b = sparse.csr_array((x.data, x.indices.astype(np.int64), x.indptr.astype(np.int64)), shape=(40, columns))
    many = sparse.vstack([x] * 200, format="csr")
    for _ in range(3):
        with pytest.raises(MemoryError, match="a kernel needs more memory than there is"):
            spgemm(many, b, method=method, num_threads=4)
        np.testing.assert_allclose(spgemm(many, x, num_threads=4).toarray(), (many @ x).toarray())


@pytest.mark.parametrize("columns", [100, 2**24 + 3, 2**40, 2**61])
def test_wide_matrices_take_memory_by_entries(columns):
    x, narrow = wide(columns), wide(100)
    for threads in (1, 2):
        found, wanted = (block_density(m, 1, num_threads=threads) for m in (x, narrow))
        assert found.blocks == 2 * columns
        assert (found.kept, found.full, found.covered, found.nnz) == (wanted.kept, wanted.full, wanted.covered, 3)
        np.testing.assert_array_equal(found.histogram, wanted.histogram)
    a = sparse.csr_array(np.array([[1.0, 2.0], [0.0, 3.0], [0.0, 0.0]]))
    for method in ("auto", "hash", "inner", "outer", "merge", "smash-v1", "smash-v3"):
        c, d = (spgemm(a, m, method=method) for m in (x, narrow))
        assert c.shape == (3, columns)
        for part in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(c, part), getattr(d, part))
    assert symbolic_nnz(a, x).tolist() == [2, 2, 0] and row_flops(a, x).tolist() == [3, 2, 0]
    for dataflow in ("inner", "inner-masked", "outer", "row", "column"):
        found, wanted = (dataflow_traffic(a, m, dataflow) for m in (x, narrow))
        assert found.elements == wanted.elements and found.peak_live == wanted.peak_live


@pytest.mark.parametrize("columns", [2**40 + 1, 2**56 + 5, 2**62 + 3])
def test_pixels_of_wide_matrices(columns, rng):
    places = np.unique(np.concatenate([rng.integers(0, columns, 50), [0, columns - 1]]))
    for width in (7, 512):
        edges = bin_edges(columns, width)
        assert edges.tolist() == [-(-i * columns // width) for i in range(width + 1)]
        close = np.unique(np.clip(np.concatenate([places, edges, edges - 1]), 0, columns - 1))
        a = sparse.csr_array((np.ones(len(close)), close, np.array([0, len(close)])), shape=(1, columns))
        wanted = np.bincount([int(j) * width // columns for j in close], minlength=width)
        np.testing.assert_array_equal(raster(a, shape=(1, width))[0], wanted)


@own_memory
def test_symbolic_takes_memory_by_output_not_by_products():
    """4 * 10^7 products of one row fall on 1000 columns of a wide matrix."""
    columns = np.arange(1000, dtype=np.int64) * 2**30
    b = sparse.csr_array((np.ones(1000), columns, np.array([0, 1000])), shape=(1, 2**40))
    a = sparse.csr_array((np.ones(40_000), np.zeros(40_000, np.int64), np.array([0, 40_000])), shape=(1, 1))
    before = peak_bytes()
    assert symbolic_nnz(a, b).tolist() == [1000]
    assert peak_bytes() - before < 2**25


def peak_bytes():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


FEW_THREADS = """
import os, resource, sys
import numpy as np
from scipy import sparse
from kernels.matmul.spmm import spmm
rng = np.random.default_rng(0)
a = sparse.random_array((20_000, 100), density=0.01, format="csr", rng=rng, dtype=np.float32)
b = rng.random((100, 8), np.float32)
kind, room = sys.argv[1], int(sys.argv[2])
before = len(os.listdir("/proc/self/task"))
if kind == "memory":
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + room * 2**20,) * 2)
else:
    resource.setrlimit(resource.RLIMIT_NPROC, (room, room))
    os.setuid(54321)
for _ in range(2):
    assert abs(spmm(a, b, num_threads=256) - a @ b).max() < 1e-5
print(len(os.listdir("/proc/self/task")) - before)
"""


@own_memory
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "room", "most"),
    [
        ("memory", 3, 0),
        ("memory", 40, 8),
        pytest.param("processes", 1, 0, marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")),
    ],
)
def test_threads_that_do_not_start_are_done_without(kind, room, most):
    assert int(run(FEW_THREADS, kind, str(room))[0]) <= most


ENDING = """
import os, sys, threading, time
import numpy as np
from scipy import sparse
from kernels.matmul.spgemm import spgemm
a = sparse.random_array((300, 300), density=0.3, format="csr", rng=np.random.default_rng(0))

class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(0.2)  # the interpreter is shutting down while kernels end and ask for it

def work():
    while True:
        spgemm(a, a, method="merge", num_threads=2)

slow = Slow()
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
if sys.argv[1] == "at once":
    os._exit(0)
"""


@pytest.mark.parametrize("how", ["as usual", "at once"])
def test_a_process_may_end_while_its_threads_compute(how):
    assert run(ENDING, how) == []


def test_pool_takes_calls_after_its_threads_were_told_to_stop(rng):
    a = sparse.random_array((300, 300), density=0.1, format="csr", rng=rng)
    kernels.set_num_threads(3)
    assert symbolic_nnz(a, a).sum() == spgemm(a, a).nnz
