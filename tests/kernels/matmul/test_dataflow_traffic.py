"""The dataflows' traffic: the table of formulas, checked by brute force."""

from typing import get_args

import numpy as np
import pytest
from scipy import sparse

from kernels.matmul.traffic import Dataflow, dataflow_traffic

DATAFLOWS = get_args(Dataflow)


@pytest.fixture
def worked_example():
    a = sparse.csr_array(np.array([[1, 0, 2], [0, 0, 3], [4, 5, 0.0]]))
    b = sparse.csr_array(np.array([[0, 6], [7, 0], [8, 9.0]]))
    return a, b


@pytest.mark.parametrize(
    ("dataflow", "reads", "partial", "peak"),
    [
        ("inner", (10, 12), 0, 1),
        ("outer", (5, 4), 7, 7),
        ("row", (5, 7), 0, 2),
        ("column", (7, 4), 0, 3),
        ("merge", (5, 7), 0, 2),
    ],
)
def test_worked_example(worked_example, dataflow, reads, partial, peak):
    traffic = dataflow_traffic(*worked_example, dataflow)
    assert (traffic.read_a, traffic.read_b) == reads
    assert traffic.pp_written == traffic.pp_read == partial
    assert traffic.peak_live == peak
    assert (traffic.write_c, traffic.flops) == (6, 7)


def test_brute_force(rng):
    a = sparse.random_array((20, 30), density=0.1, format="csr", rng=rng)
    b = sparse.random_array((30, 25), density=0.15, format="csr", rng=rng)
    p, q = (a.toarray() != 0).astype(int), (b.toarray() != 0).astype(int)
    products = p @ q
    traffic = {d: dataflow_traffic(a, b, d) for d in DATAFLOWS}
    rows, columns = (p.sum(1) > 0).sum(), (q.sum(0) > 0).sum()
    assert traffic["inner"].read_a == a.nnz * columns
    assert traffic["inner"].read_b == b.nnz * rows
    reached = products > 0
    assert traffic["inner-masked"].read_a == (reached * p.sum(1)[:, None]).sum()
    assert traffic["inner-masked"].read_b == (reached * q.sum(0)[None, :]).sum()
    assert traffic["outer"].peak_live == products.sum()
    assert traffic["row"].peak_live == reached.sum(1).max()
    assert traffic["column"].peak_live == reached.sum(0).max()
    assert traffic["merge"].peak_live == (p * (q.sum(1) > 0)).sum(1).max()
    assert {t.flops for t in traffic.values()} == {products.sum()}
    assert {t.write_c for t in traffic.values()} == {reached.sum()}


def walked(a, b, dataflow):
    """Walk the loops of a dataflow over patterns of 0 and 1 and write down every read, product and pointer."""
    (m, k), n = a.shape, b.shape[1]
    found = dict.fromkeys(("read_a", "read_b", "pp_written", "write_c", "ptr", "flops", "comparisons", "peak_live"), 0)
    outputs, live, most = set(), set(), 0

    def product(i, t, j, line):
        nonlocal most
        live.difference_update({place for place in live if place[0] != line})  # the line before is complete
        live.add((line, (i, j), t if dataflow == "outer" else 0))
        most = max(most, len(live))
        found["flops"] += 1
        outputs.add((i, j))

    entries = lambda row: np.flatnonzero(row).tolist()  # noqa: E731
    if dataflow.startswith("inner"):
        found["ptr"] = m + 1
        for i in range(m):
            wanted = [j for j in range(n) if any(a[i, t] and b[t, j] for t in range(k))]
            if dataflow == "inner" and a[i].any():
                found["ptr"] += n + 1
                wanted = [j for j in range(n) if b[:, j].any()]
            for j in wanted:
                found["ptr"] += 2 * (dataflow == "inner-masked")
                found["read_a"] += a[i].sum()
                found["read_b"] += b[:, j].sum()
                found["comparisons"] += a[i].sum() + b[:, j].sum()
                most = 1  # one sum, of whatever meets
                for t in entries(a[i] * b[:, j]):
                    product(i, t, j, (i, j))
    elif dataflow == "outer":
        found["ptr"] = 2 * (k + 1)
        for t in range(k):
            found["read_a"] += a[:, t].sum()
            found["read_b"] += b[t].sum()
            for i in entries(a[:, t]):
                for j in entries(b[t]):
                    product(i, t, j, "all")
        found["pp_written"] = found["flops"]
    elif dataflow == "row":
        found["ptr"] = m + 1
        for i in range(m):
            for t in entries(a[i]):
                found["read_a"] += 1
                found["ptr"] += 2
                for j in entries(b[t]):
                    found["read_b"] += 1
                    product(i, t, j, i)
    elif dataflow == "merge":
        found["ptr"] = m + 1
        for i in range(m):
            found["read_a"] += a[i].sum()
            found["ptr"] += 2 * a[i].sum()
            ways = [entries(b[t]) for t in entries(a[i]) if b[t].any()]
            most = max(most, len(ways))
            for j in tournament(ways, found):
                found["read_b"] += 1
                found["flops"] += 1
                outputs.add((i, j))
    else:
        found["ptr"] = n + 1
        for j in range(n):
            for t in entries(b[:, j]):
                found["read_b"] += 1
                found["ptr"] += 2
                for i in entries(a[:, t]):
                    found["read_a"] += 1
                    product(i, t, j, j)
    return found | {"write_c": len(outputs), "peak_live": most, "pp_read": found["pp_written"]}


def tournament(ways, found):
    """Yield the merged columns; count the comparisons of the first round and of every way from a leaf to the root."""
    leaves = 1
    while leaves < len(ways):
        leaves *= 2
    done = float("inf")
    tree = [None] * leaves + [(way[0], w, 0) for w, way in enumerate(ways)] + [None] * (leaves - len(ways))
    for node in reversed(range(1, leaves)):
        left, right = tree[2 * node], tree[2 * node + 1]
        found["comparisons"] += left is not None and right is not None
        tree[node] = min((x for x in (left, right) if x is not None), default=None)
    while ways and tree[1][0] != done:
        column, w, at = tree[1]
        yield column
        tree[leaves + w] = (ways[w][at + 1], w, at + 1) if at + 1 < len(ways[w]) else (done, w, 0)
        node = leaves + w
        while node > 1:
            node //= 2
            found["comparisons"] += 1
            tree[node] = min(x for x in (tree[2 * node], tree[2 * node + 1]) if x is not None)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_every_count_is_what_the_loops_touch(dataflow):
    """Random patterns with empty rows and columns, and patterns whose product is empty."""
    rng, cases = np.random.default_rng(3), []
    for shape in ((6, 4, 5), (1, 7, 3), (5, 1, 4), (8, 9, 2)):
        a, b = ((rng.random(s) < 0.4).astype(int) for s in (shape[:2], shape[1:]))
        a[::5], b[:, ::4] = 0, 0
        cases.append((a, b))
    meets_nothing = (np.array([[1, 0], [1, 0]]), np.array([[0, 0, 0], [0, 1, 1]]))
    only_rows, only_columns = (
        (np.ones((2, 2), int), np.zeros((2, 3), int)),
        (np.zeros((2, 2), int), np.ones((2, 3), int)),
    )
    for a, b in (*cases, meets_nothing, only_rows, only_columns):
        traffic = dataflow_traffic(sparse.csr_array(a.astype(float)), sparse.csr_array(b.astype(float)), dataflow)
        wanted = walked(a, b, dataflow)
        assert {name: getattr(traffic, name) for name in wanted} == wanted
        moved = sum(wanted[name] for name in ("read_a", "read_b", "pp_written", "pp_read", "write_c"))
        assert traffic.elements == moved and traffic.total_bytes == 16 * moved + 8 * wanted["ptr"]


def test_dense_inner_reads_n_cubed():
    full = sparse.csr_array(np.ones((6, 6)))
    assert dataflow_traffic(full, full, "inner").read_a == 6**3


def test_bytes_and_ideal_cache(worked_example):
    traffic = dataflow_traffic(*worked_example, "row", index_bytes=4, value_bytes=8, cache="ideal")
    assert (traffic.read_a, traffic.read_b) == (5, 4)
    assert traffic.bytes_by_stream["write_c"] == 6 * 12
    assert traffic.total_bytes == traffic.elements * 12 + traffic.ptr * 4
    narrow = dataflow_traffic(*worked_example, "outer", index_bytes=1, value_bytes=1)
    assert narrow.bytes_by_stream == {
        "read_a": 10, "read_b": 8, "pp_written": 14, "pp_read": 14, "write_c": 12, "ptr": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataflow": "diagonal"}, "dataflow must be one of"),
        ({"dataflow": "row", "cache": "big"}, "cache must be one of none, ideal"),
        ({"dataflow": "row", "index_bytes": 0}, "index_bytes must be"),
        ({"dataflow": "row", "index_bytes": 4.0}, "index_bytes must be"),
        ({"dataflow": "row", "value_bytes": True}, "value_bytes must be"),
    ],
)
def test_bad_arguments(worked_example, change, words):
    with pytest.raises((ValueError, TypeError), match=words):
        dataflow_traffic(*worked_example, **change)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_empty(dataflow):
    a, b = sparse.csr_array((0, 4)), sparse.csr_array((4, 0))
    assert dataflow_traffic(a, b, dataflow).elements == 0
