"""What the explorer's methods share: curves from one scoring pass, costs, ragged lengths, the query's maps."""

import numpy as np
import pytest
import torch

from kernels.masks.block_scores import true_block_mass
from workbench.data.attention_patterns import slash, vertical_slash
from workbench.explorers.attention.curves import SEGMENTS, THRESHOLDS, block_mass
from workbench.explorers.attention.explorer import view_class
from workbench.explorers.attention.method import compared, methods
from workbench.explorers.attention.methods.sea import KEYS
from workbench.explorers.attention.source import load_input, of_head
from workbench.models.attention.dense_attention import attention_weights

SETTINGS = {knob.key: knob.default for knob in view_class().knobs} | {"tokens": 256, "block": 16, "stride": 4}


@pytest.mark.parametrize("source", ["slash", "heavy"])
def test_curves_equal_tracing_every_point(source):
    given = load_input(source, tokens=256)
    for key, name, settings in (("xattention", "threshold", THRESHOLDS), ("pbs_attn", "threshold", THRESHOLDS)):
        method = methods()[key]
        first = method.curves(given, SETTINGS, method.trace(given, SETTINGS))[0]
        points = [method.trace(given, SETTINGS | {name: value}) for value in settings[::3]]
        np.testing.assert_allclose(first.density[::3], [p.density for p in points])
        np.testing.assert_allclose(first.coverage[::3], [p.coverage for p in points], rtol=1e-5)
    sea = methods()["sea"]
    first = sea.curves(given, SETTINGS, sea.trace(given, SETTINGS))[0]
    points = [sea.trace(given, SETTINGS | {"keys_per_query": k}) for k in KEYS[::3]]
    np.testing.assert_allclose(first.coverage[::3], [p.coverage for p in points], rtol=1e-5)


def test_the_curve_of_segments_is_what_the_pattern_alone_holds():
    given = load_input("slash", tokens=256)
    curve = methods()["combiner"].curves(given, SETTINGS, methods()["combiner"].trace(given, SETTINGS))[0]
    points = [compared()["combiner_alone"].trace(given, SETTINGS | {"segment_tokens": part}) for part in SEGMENTS]
    np.testing.assert_allclose(curve.density, [p.density for p in points])
    np.testing.assert_allclose(curve.coverage, [p.coverage for p in points], rtol=1e-5)


def test_beside_an_estimators_curve_stands_that_of_the_oracle():
    given, settings = load_input("minilm", tokens=128, layer=3), SETTINGS | {"estimator": "trained_180"}
    sea = methods()["sea"]
    learnt, best = sea.curves(given, settings, sea.trace(given, settings))
    points = [sea.trace(given, settings | {"keys_per_query": k}) for k in KEYS[::3]]
    np.testing.assert_allclose(learnt.coverage[::3], [p.coverage for p in points], rtol=1e-5)
    alone = sea.curves(given, SETTINGS, sea.trace(given, SETTINGS))
    assert [curve.label for curve in alone] == [best.label] != [learnt.label]
    np.testing.assert_array_equal(best.coverage, alone[0].coverage)
    assert (best.coverage > learnt.coverage).all()


def test_the_budget_over_heads_does_not_depend_on_the_head_looked_at():
    settings = SETTINGS | {"group": "batch"}
    label = "cells chosen per query: this head / mean of all heads, fewest to most"
    told = [
        methods()["sea"].trace(load_input("minilm", tokens=64, layer=3, head=head), settings).facts[label]
        for head in (0, 5, 11)
    ]
    assert len({text.split(" / ")[1] for text in told}) == 1
    assert len({text.split(" / ")[0] for text in told}) == 3


def test_curves_score_once_per_line(monkeypatch):
    given, calls = load_input("slash", tokens=256), []
    from workbench.models.attention import pbs_attn, xattention

    for module, name in ((xattention, "block_scores"), (pbs_attn, "scored_mask")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, name=name, **k: calls.append(name) or real(*a, **k))
    seen = {key: methods()[key].trace(given, SETTINGS) for key in ("xattention", "pbs_attn")}
    calls.clear()
    for key, trace in seen.items():
        methods()[key].curves(given, SETTINGS, trace)
    assert calls == ["block_scores"] * 3 + ["scored_mask"] * 3


def test_block_mass_of_ragged_length(rng):
    q, k = rng.standard_normal((2, 1, 1, 50, 8)).astype(np.float32)
    attention = methods()["formula"].trace(_bare(q, k, causal=True), SETTINGS).attention
    np.testing.assert_allclose(block_mass(attention, 16), true_block_mass(q, k, block_size=16)[0, 0], rtol=1e-4)


def _bare(q, k, causal):
    q, k = torch.from_numpy(q), torch.from_numpy(k)
    return of_head("made up", q, k, k, 0, causal=causal)


def test_pbs_takes_ragged_bidirectional_lengths_in_whole_blocks(rng):
    q, k = rng.standard_normal((2, 1, 1, 100, 8)).astype(np.float32)
    seen = methods()["pbs_attn"].trace(_bare(q, k, causal=False), SETTINGS | {"block": 32})
    assert seen.block_size == 32 and seen.keep.shape == (4, 4) and sorted(seen.order) == list(range(100))
    whole = methods()["pbs_attn"].trace(_bare(q, k, causal=False), SETTINGS | {"block": 32, "threshold": 1.0})
    assert whole.coverage == pytest.approx(1) and whole.density == 1


@pytest.mark.parametrize("key", compared())
def test_runs_do_the_work_that_is_timed(key):
    method = compared()[key]
    required = method.requires.settings(SETTINGS) if method.requires else {}
    needed = {"input": "landscape" if method.pictures else "slash", "layer": 0} | required
    given = load_input(needed["input"], layer=needed["layer"], **({} if method.pictures else {"tokens": 128}))
    seen = method.trace(given, SETTINGS)
    runs = method.runs(given, SETTINGS, seen)
    t, d = given.q.shape[2:]
    parts = {name: run() for name, run in runs.items()}
    if "attend" in parts and key != "combiner":
        effective = torch.from_numpy(seen.effective)
        if required:  # only the exact part is timed
            effective = attention_weights(given.q, given.k, causal=False, allowed=seen.allowed)[0, 0]
        wanted = effective @ given.v[0, 0]
        np.testing.assert_allclose(np.asarray(parts["attend"]).reshape(t, d), wanted, rtol=1e-3, atol=1e-3)


def test_the_slash_alone_equals_the_slash_with_its_mask():
    q, k, delta, column = slash(100, heads=2, seed=3)
    q2, k2, true = vertical_slash(100, heads=2, seed=3)
    np.testing.assert_array_equal(q, q2)
    np.testing.assert_array_equal(k, k2)
    for head in range(2):
        offsets = np.diff(np.argwhere(true[0, head])[:, ::-1])[:, 0]
        assert {delta[head], delta[head] + 1} & set(range(100)) <= set(offsets) and true[0, head, 99, column[head]]
    with pytest.raises(ValueError, match="column must be"):
        slash(100, column=100)


def test_the_query_of_a_picture_reads_it_and_names_every_source():
    given, settings = load_input("landscape"), SETTINGS | {"window": 7, "square": 4}
    of = methods()["favit"].query(given, None)
    found = of(1000, settings | {"dilation": 8})
    names = ["full attention", "Swin window", "FaSA, dilation 1", "FaSA, dilation 8", "FaSA, global, stride 4"]
    assert list(found.maps) == list(found.reach) == names and found.fused == names[3]
    assert list(found.keys_met.values()) == [56 * 56, 49, 49, 49, 14 * 14]
    reached = np.unique(np.concatenate(found.sources))
    np.testing.assert_array_equal(reached, np.flatnonzero(found.maps[names[3]].ravel() > 0))
    near = of(1000, settings | {"dilation": 1, "square": 8})
    assert near.fused == names[2] and [len(pixels) for pixels in near.sources] == [64] * 49
