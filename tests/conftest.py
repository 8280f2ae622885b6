"""Rules for every test: no outbound network, two threads, one table of tolerances, and who shares a worker."""

import os
import runpy
import tempfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
OUTBOUND = ROOT / "tests" / "outbound"

pytest_plugins = ["tests.paper_times"]

# A run with `-n 2` has two workers of one thread each; a plain run has one process with two threads.
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
THREADS = 1 if IS_WORKER else 2
# These start servers or wait for pages, so no two of them run at once.
SERVERS = (
    "tests/browser/",
    *(f"tests/workbench/app/test_{name}.py" for name in ("handlers", "kernel_pool", "proxy", "serve")),
)

# Relative to the larger of the two values, and to the largest value of the array for what cancels.
TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}


def pytest_configure(config):
    """Set up this process and, through the environment, every process that a test starts."""
    paths = [str(OUTBOUND), str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    home = tempfile.mkdtemp(prefix="workbench-tests-")
    config.add_cleanup(lambda: _remove(home))
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        os.environ[variable] = os.path.join(home, variable.lower())
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(THREADS)))
    os.environ.update(WORKBENCH_STUDENT="tester", PYTHONHASHSEED="0")
    runpy.run_path(str(OUTBOUND / "sitecustomize.py"))

    from hypothesis import settings

    settings.register_profile("workbench", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
    settings.load_profile("workbench")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let one worker take all tests of a paper, or else of a file, so that what they share is made once.

    The mark ``xdist_group`` would say the same, but pytest-xdist 3.8 cannot hand it on from pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    from tests.paper_times import REST, paper_keys, paper_of

    class ByPaper(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            paper = paper_of(nodeid, keys)
            return "servers" if nodeid.startswith(SERVERS) else nodeid.partition("::")[0] if paper == REST else paper

    keys = paper_keys()
    config.option.loadscopereorder = False  # papers and servers come first as they are, and take longest
    return ByPaper(config, log)


def _remove(folder):
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def kernel_threads():
    """Start every test with the same number of kernel threads, whatever the test before it set."""
    import kernels

    kernels.set_num_threads(THREADS)


@pytest.fixture(scope="module")
def one_thread():
    """Let torch use one thread: with tiny operators, a second one on a busy machine mostly waits for the first."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def assert_close():
    """Return ``assert_close(found, wanted)`` for numbers, arrays, torch tensors and SciPy sparse arrays.

    Integers and booleans must be equal. Floats may differ by the coarser dtype's tolerance, relative to the element
    and to the largest element. NaN must meet NaN and infinity the same infinity. Sparse arrays are compared after
    summing duplicates: first the pattern (explicit zeros count), then the values.
    """
    return _assert_close


def _assert_close(found, wanted, *, label=""):
    if hasattr(wanted, "tocsr") or hasattr(found, "tocsr"):
        _assert_sparse_close(found, wanted, label)
        return
    found, found_type = _array(found)
    wanted, wanted_type = _array(wanted)
    assert found.shape == wanted.shape, f"{label} shape {found.shape}, wanted {wanted.shape}"
    types = [t for t in (found_type, wanted_type) if t in TOLERANCES]
    if not types:
        wrong = found != wanted
        assert not wrong.any(), f"{label} {int(wrong.sum())} of {wrong.size} differ, first at {_first(wrong)}"
        return
    tolerance = max(TOLERANCES[t] for t in types)
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    nan = np.isnan(found) != np.isnan(wanted)
    assert not nan.any(), f"{label} NaN meets a number at {int(nan.sum())} places, first at {_first(nan)}"
    infinite = np.isinf(found) | np.isinf(wanted)
    wrong = infinite & (found != wanted)
    assert not wrong.any(), f"{label} infinities differ, first at {_first(wrong)}"
    finite = ~infinite & ~np.isnan(wanted)
    gap = np.abs(np.subtract(found, wanted, where=finite, out=np.zeros_like(wanted)))
    size = np.abs(wanted, where=finite, out=np.zeros_like(wanted))
    wrong = gap > tolerance * np.maximum(size, size.max(initial=0.0))
    if wrong.any():
        at = np.unravel_index(int(gap.argmax()), gap.shape)
        where = tuple(map(int, at))
        raise AssertionError(
            f"{label} {int(wrong.sum())} of {wrong.size} differ by more than {tolerance:g} ({'/'.join(types)}); "
            f"the worst at {where}: {found[at]!r}, wanted {wanted[at]!r}"
        )


def _assert_sparse_close(found, wanted, label):
    import scipy.sparse as sp

    assert sp.issparse(found) and sp.issparse(wanted), f"{label} one is sparse, the other {type(found)} {type(wanted)}"
    assert found.shape == wanted.shape, f"{label} shape {found.shape}, wanted {wanted.shape}"
    found, wanted = (sp.csr_array(m, copy=True) for m in (found, wanted))
    for matrix in (found, wanted):
        matrix.sum_duplicates()
    _assert_close(found.indptr.astype(np.int64), wanted.indptr.astype(np.int64), label=f"{label} row pointers:")
    _assert_close(found.indices.astype(np.int64), wanted.indices.astype(np.int64), label=f"{label} columns:")
    _assert_close(found.data, wanted.data, label=f"{label} values:")


def _array(values):
    if hasattr(values, "detach"):
        kind = str(values.dtype).removeprefix("torch.")
        values = values.detach().cpu()
        return (values.float() if kind == "bfloat16" else values).numpy(), kind
    values = np.asarray(values)
    return values, values.dtype.name


def _first(mask):
    return tuple(int(i[0]) for i in np.nonzero(mask)) if mask.ndim else ()
