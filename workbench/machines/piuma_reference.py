"""The PIUMA model in plain Python, to read and to test the compiled loops against. Same rules, same letters, slow."""

import math
from dataclasses import dataclass

from workbench.machines.piuma import VERSION_HASH, PiumaConfig, WindowPlan, plan_windows


@dataclass
class Item:
    """One nonzero of A in one window: row i, products p, extra probes q, inserts u, length r of its row of B."""

    i: int
    p: int
    q: int
    u: int
    r: int


@dataclass
class Token:
    """Work of one fetch: row, inserts u, instructions I, stand-alone latency L in cycles, DRAM bytes D."""

    i: int
    u: int
    I: float
    L: float
    D: float


def hash_trace_reference(a, b, windows: WindowPlan, slots, hash) -> list[list[Item]]:
    """Replay the tables row by row; return the items of every window."""
    return [_replay(a, b, windows, w, slots, hash) for w in range(len(windows))]


def _replay(a, b, windows, w, slots, hash):
    table, items = {}, []
    first, stop = int(windows.row_start[w]), int(windows.row_stop[w])
    c0, c1 = int(windows.column_start[w]), int(windows.column_stop[w])
    s, n = slots.bit_length() - 1, c1 - c0
    home = {
        "high": lambda tag: tag >> max(0, ((stop - first) * n - 1).bit_length() - s),
        "low": lambda tag: tag % slots,
        "multiplicative": lambda tag: (tag * 0x9E3779B97F4A7C15 % 2**64) >> (64 - s),
    }[hash]
    for i in range(first, stop):
        for k in map(int, a.indices[a.indptr[i] : a.indptr[i + 1]]):
            row = [int(j) for j in b.indices[b.indptr[k] : b.indptr[k + 1]]]
            item = Item(i, 0, 0, 0, len(row))
            for j in row:
                if not c0 <= j < c1:
                    continue
                tag = (i - first) * n + j - c0
                h = home(tag)
                while table.get(h, tag) != tag:  # taken by another tag: a collision
                    h = (h + 1) % slots
                    item.q += 1
                item.u += h not in table
                item.p += 1
                table[h] = tag
            items.append(item)
    return items


def cut_tokens_reference(items: list[Item], version, c: PiumaConfig) -> list[Token]:
    """V1: one token per item. V2, V3: runs of items of one row with at most ``token_pp`` products."""
    groups = []
    for item in items:
        joins = version > 1 and groups and groups[-1][0].i == item.i
        if joins and sum(x.p for x in groups[-1]) + item.p <= c.token_pp:
            groups[-1].append(item)
        else:
            groups.append([item])
    return [_token(group, version, c) for group in groups]


def _token(group, version, c):
    a, p, q, u = len(group), sum(x.p for x in group), sum(x.q for x in group), sum(x.u for x in group)
    al = 2 * math.ceil(c.word * a / c.line)
    bl = sum(2 * math.ceil(c.word * x.r / c.line) for x in group)
    shared, v3 = version > 1, version == 3
    I = (
        (c.c_dyn if shared else c.c_static)
        + a * c.c_nz
        + p * (c.c_pp + c.c_merge)
        + (p + q) * c.c_probe
        + v3 * u * c.c_alloc
    )
    L = I * c.l_pipe + (al + bl + 2 * a) * c.l_dram + (2 * p + q + shared + v3 * u) * c.l_atomic
    L += v3 * (p + u) * c.l_spad  # merging reads an offset, claiming stores an offset and a column
    return Token(group[0].i, u, I, L, c.line * (al + bl) + 2 * c.word * a)


def simulate_reference(a, b, version, c: PiumaConfig) -> tuple[float, list[tuple[int, int, float, float]]]:
    """Return the cycles of one block and its events (thread, row, start, stop)."""
    windows = plan_windows(a, b, c.slots, c.load)
    now, dma, events = _count(a, c), 0.0, []
    for w, items in enumerate(hash_trace_reference(a, b, windows, c.slots, VERSION_HASH[version])):
        now, dma = _hash(cut_tokens_reference(items, version, c), version, c, now, dma, events)
        u = sum(item.u for item in items)
        x = 2 * c.word * u + c.word * int(windows.row_stop[w] - windows.row_start[w])
        if version == 3:
            now += dma / min(c.dma_bw, c.bw) + c.c_dma  # wait for the previous transfer, then hand over this window
            now += 2 * c.word * c.slots / c.fill_bw  # the engine clears the table, and then gathers
            dma = x
        else:
            work = c.slots * c.c_scan + u * c.c_wb
            latency = work * c.l_pipe + c.slots * c.l_spad + 2 * u * c.l_store
            now += max(work / c.n_mtc, latency / c.threads, x / c.bw) / c.wb_eff
    return now + dma / min(c.dma_bw, c.bw), events


def _count(a, c):
    """Return the cycles of the pass that counts the products of every row: A's columns, two pointers for each."""
    entries, lines = a.nnz, math.ceil(c.word * a.nnz / c.line)
    work, transferred = entries * c.c_nz, c.line * lines + 2 * c.word * entries
    latency = work * c.l_pipe + (lines + 2 * entries) * c.l_dram
    return max(work / c.n_mtc, latency / c.threads, transferred / c.bw)


def _hash(tokens, version, c, now, dma, events):
    """Simulate one window as a fluid; return the time at its end and the bytes that the DMA still has to move."""
    left, start, running = [0.0] * c.threads, [0.0] * c.threads, [None] * c.threads
    queues = [tokens[x :: c.threads] for x in range(c.threads)] if version == 1 else [list(tokens)] * c.threads
    while True:
        for x in range(c.threads):
            if running[x] is None and queues[x]:
                running[x] = queues[x].pop(0)
                left[x], start[x] = running[x].I, now
        active = [x for x in range(c.threads) if running[x]]
        if not active:
            return now, dma
        rate = {x: running[x].I / running[x].L for x in active}
        for g in range(c.n_mtc):
            mine = [x for x in active if x // c.threads_per_mtc == g]
            wanted = sum(rate[x] for x in mine)
            for x in mine:
                rate[x] /= max(1, wanted)
        demand = sum(rate[x] * running[x].D / running[x].I for x in active) + (c.dma_bw if dma > 0 else 0)
        scale = min(1, c.bw / demand)
        dma_rate = c.dma_bw * scale
        dt = min([left[x] / (rate[x] * scale) for x in active] + ([dma / dma_rate] if dma > 0 else []))
        now += dt
        dma = 0.0 if dma - dma_rate * dt < 1e-9 else dma - dma_rate * dt
        for x in active:
            left[x] -= rate[x] * scale * dt
            if left[x] < 1e-9:
                events.append((x, running[x].i, start[x], now))
                running[x] = None
