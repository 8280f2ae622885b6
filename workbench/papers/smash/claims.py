"""Claims of SMASH, and how our experiments judge them."""

from workbench.judging import above, at_least, at_most, fitted, rising, verdict
from workbench.paper import Claim, Judged

VERSIONS = ("V1", "V2", "V3")
_ABSTRACT = "abstract"
_RESULTS = "results chapter"
_MODEL = {"calibrated": "constants of the PIUMA model", "on": "this input"}
_INPUT = {"calibrated": "parameters of the generator", "on": "these counts"}
_LOAD = {"calibrated": "load of the hash table", "on": "what these collisions cost the first version"}


def _by_version(rows, quantity) -> list[float]:
    """Values of V1, V2, V3 on the reference workload, the only input that the paper's numbers speak of."""
    values = {row["version"]: row["value"] for row in rows if row["quantity"] == quantity and row["matrix"] == "W0"}
    return [values[version] for version in VERSIONS]


def _if_near(near, shown, reason) -> Judged:
    """Return "fitted" with its reason, or that ours misses the paper's value in spite of the fit."""
    return fitted(shown, **reason) if near else (shown, "not reproduced")


def _judge_ratio(slow, fast, low, high):
    """Fitted within [low, high]."""

    def judge(rows):
        times = _by_version(rows, "time")
        ratio = times[slow - 1] / times[fast - 1]
        return _if_near(at_least(ratio, low) and at_most(ratio, high), f"{ratio:.2f}x (modelled)", _MODEL)

    return judge


def _judge_profile(quantity, paper, tolerance, shown):
    """Fitted if it rises with each version; says whether every version is within the tolerance of the paper."""

    def judge(rows):
        ours = _by_version(rows, quantity)
        near = all(at_most(abs(x - y), tolerance * y) for x, y in zip(ours, paper, strict=True))
        told = " / ".join(shown.format(x) for x in ours) + f" (modelled{'' if near else '; the order only'})"
        return _if_near(rising(ours), told, _MODEL)

    return judge


def _judge_times(rows):
    """Fitted if every time is within 15 % of the paper's."""
    ours, paper = _by_version(rows, "time"), (986.7, 432.5, 105.4)
    near = all(at_most(abs(x - y), 0.15 * y) for x, y in zip(ours, paper, strict=True))
    return _if_near(near, " / ".join(f"{x:.1f}" for x in ours) + " ms (modelled)", _MODEL)


def _judge_hit_rate(rows):
    """Fitted if every version's rate is from 88 to 93 %, or at most 10 points away."""
    ours = _by_version(rows, "L1 hit rate")
    low, high = min(ours), max(ours)
    inside, near = (at_least(low, 0.88 - by) and at_most(high, 0.93 + by) for by in (0, 0.10))
    note = "" if inside else "; within 10 points" if near else "; further than 10 points"
    return _if_near(near, f"{low:.0%} to {high:.0%} (modelled{note})", _MODEL)


def _judge_probes(rows):
    """Fitted if high-order bits need over ten times the extra probes, and V2 and V3 the same."""
    high, low, again = _by_version(rows, "extra probes")
    same = next(row["value"] for row in rows if row["quantity"] == "products whose probes differ, V2 to V3") == 0
    shown = f"{high:.2f} / {low:.2f} / {again:.2f} extra probes per product (counted)"
    return _if_near(above(high, 10 * low) and same, shown, _LOAD)


def _judge_balance(rows):
    """Fitted if busy time rises with each version, from 40 % or less to 90 % or more."""
    ours = _by_version(rows, "threads busy")
    far = at_most(ours[0], 0.4) and at_least(ours[2], 0.9)
    shown = " / ".join(f"{x:.0%}" for x in ours)
    return _if_near(rising(ours) and far, f"{shown} of thread time busy (modelled)", _MODEL)


def _judge_input(rows):
    """Fitted if every count is within 10 % of the paper's: the generator's parameters were chosen to meet them."""
    ours = {row["quantity"]: row["value"] for row in rows if row["kind"] == "counted" and row["matrix"] == "W0"}
    paper = {"nnz(A)": 254_211, "nnz(B)": 254_211, "nnz(C)": 5_174_841}
    off = max(abs(ours[name] - paper[name]) / paper[name] for name in paper)
    shown = ", ".join(f"{name} {ours[name]:,}" for name in paper)
    return _if_near(at_most(off, 0.1), f"{shown}, at most {off:.1%} off (counted)", _INPUT)


def _judge_traffic(rows):
    """Reproduced if row-wise moves less than outer and outer less than inner, with equal products.

    Partly if row-wise moves less than inner. All of these are counts and compare exactly.
    """
    moved = {row["dataflow"]: row["value"] for row in rows if row["quantity"] == "elements moved"}
    same = len({row["value"] for row in rows if row["quantity"] == "products F"}) == 1
    ordered = moved["row"] < moved["outer"] < moved["inner"]
    shown = ", ".join(f"{name} {moved[name] / 1e6:,.1f} M" for name in ("row", "outer", "inner"))
    return f"{shown} elements (counted, no cache)", verdict(ordered and same, moved["row"] < moved["inner"])


def _judge_exact(rows):
    """Reproduced if no error is above 1e-12 and no entry too many or missing."""
    error = max(row["value"] for row in rows if row["quantity"] == "largest error")
    wrong = sum(row["value"] for row in rows if row["quantity"] == "entries too many or missing")
    shown = f"largest relative error {error:.1e}, {wrong} entries too many or missing (measured)"
    return shown, verdict(at_most(error, 1e-12) and wrong == 0)


def _judge_structure(rows):
    """Reproduced if no version is faster than V3 on any input; partly if on some. An equal time is not faster."""
    times = {}
    for r in rows:
        if r["quantity"] == "time" and r["hash"] != "multiplicative":
            times.setdefault((r["matrix"], r["log2_slots"]), {})[r["version"]] = r["value"]
    fastest = [at_most(t["V3"], min(t.values())) for t in times.values()]
    shown = f"V3 is the fastest on {sum(fastest)} of {len(fastest)} inputs (modelled)"
    return shown, verdict(all(fastest), any(fastest))


CLAIMS = (
    Claim(
        key="exact",
        statement="Merging partial products in hash tables gives the exact product, whatever the version.",
        where="method",
        paper_value="exact",
        tag="from memory",
        experiment="correctness",
        judge=_judge_exact,
        whose="workbench",
    ),
    Claim(
        key="input",
        statement="The input is an R-MAT pair of 16,384 vertices, 99.9 per cent sparse.",
        where=_RESULTS,
        paper_value="nnz(A), nnz(B) 254,211, nnz(C) 5,174,841",
        tag="from memory",
        experiment="versions",
        judge=_judge_input,
    ),
    Claim(
        key="speedup",
        statement="The third version is 9.4 times faster than the first on one PIUMA block.",
        where=_ABSTRACT,
        paper_value="9.4x",
        tag="published",
        experiment="versions",
        judge=_judge_ratio(1, 3, 7, 11),
    ),
    Claim(
        key="tokens",
        statement="Tokens and low-order-bit hashing alone make it 2.3 times faster.",
        where=_RESULTS,
        paper_value="2.3x",
        tag="from memory",
        experiment="versions",
        judge=_judge_ratio(1, 2, 1.7, 2.9),
    ),
    Claim(
        key="overlap",
        statement="Fragmented memory and DMA write-back bring another factor of 4.1.",
        where=_RESULTS,
        paper_value="4.1x",
        tag="from memory",
        experiment="versions",
        judge=_judge_ratio(2, 3, 3.5, 4.7),
    ),
    Claim(
        key="times",
        statement="Run times of the three versions on one block.",
        where=_RESULTS,
        paper_value="986.7 / 432.5 / 105.4 ms",
        tag="from memory",
        experiment="versions",
        judge=_judge_times,
    ),
    Claim(
        key="ipc",
        statement="Instructions per cycle of the block rise with each version.",
        where=_RESULTS,
        paper_value="0.9 / 1.7 / 2.3",
        tag="from memory",
        experiment="versions",
        judge=_judge_profile("instructions per cycle", (0.9, 1.7, 2.3), 0.2, "{:.2f}"),
    ),
    Claim(
        key="bandwidth",
        statement="Use of DRAM bandwidth rises with each version.",
        where=_RESULTS,
        paper_value="55 / 74 / 96 %",
        tag="from memory",
        experiment="versions",
        judge=_judge_profile("DRAM bandwidth in use", (0.55, 0.74, 0.96), 0.2, "{:.0%}"),
    ),
    Claim(
        key="hit-rate",
        statement="L1 serves most accesses in every version.",
        where=_RESULTS,
        paper_value="88 to 93 %",
        tag="from memory",
        experiment="versions",
        judge=_judge_hit_rate,
    ),
    Claim(
        key="collisions",
        statement="Low-order bits cause far fewer collisions than order-preserving high-order bits.",
        where="method",
        paper_value="far fewer",
        tag="from memory",
        experiment="versions",
        judge=_judge_probes,
    ),
    Claim(
        key="balance",
        statement="Tokens taken from a queue keep the threads busy that a static split leaves idle.",
        where="method",
        paper_value="balanced",
        tag="from memory",
        experiment="versions",
        judge=_judge_balance,
    ),
    Claim(
        key="traffic",
        statement="Row-wise order moves less than outer or inner products, with equal multiplications.",
        where="method",
        paper_value="row-wise < outer < inner",
        tag="from memory",
        experiment="traffic",
        judge=_judge_traffic,
    ),
    Claim(
        key="any-input",
        statement="The third version is the fastest.",
        where=_ABSTRACT,
        paper_value="shown on R-MAT; other inputs not reported",
        tag="from memory",
        experiment="structure",
        judge=_judge_structure,
        whose="workbench",
    ),
)
