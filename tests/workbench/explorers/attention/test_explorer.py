"""The attention explorer: every method on generated heads, own files, refusals, stories, one query, recipe."""

import numpy as np
import pytest

from widgets.figures.attention import panel
from workbench.data import text as texts
from workbench.explorers.attention.explorer import explorer
from workbench.explorers.attention.method import methods, offered
from workbench.explorers.attention.source import sources
from workbench.models.attention.sea_stages import stages
from workbench.models.attention.sea_training import shipped
from workbench.models.language import minilm


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.parametrize("method", offered())
def test_every_method_shows_a_head_and_counts_its_cost(method):
    given = {} if offered()[method].pictures else {"input": "heavy", "tokens": 256}
    view = explorer(**given, method=method, block=16).wait()
    try:
        assert view.error == ""
        result = view.scene.result
        assert result.attention.sum() == pytest.approx(view.scene.t, rel=1e-4)
        assert 0 <= result.density <= 1 and result.cost.kept.multiply_adds > 0
        assert any(fact.startswith("time of a call") for fact in result.facts)
    finally:
        view.close()


@pytest.mark.slow
@pytest.mark.parametrize("method", offered())
def test_every_story_can_be_told(method):
    view = explorer(method=method)
    try:
        for number, story in enumerate(offered()[method].stories):
            if story.state.get("tokens", 0) > 2048:
                continue
            view._story_chosen(str(number))
            view.wait()
            assert view.error == "" and view.method == method
            assert story.state.items() <= view.state.items()
            assert len(view.query) < 300
    finally:
        view.close()


def facts(**state):
    view = explorer(**state).wait()
    try:
        assert view.error == ""
        return view.scene
    finally:
        view.close()


def test_the_antidiagonal_sees_a_slash_that_the_diagonal_does_not():
    scene = facts(method="xattention", **methods()["xattention"].stories[0].state)
    band = {r.method: np.diagonal(r.keep, -1).mean() for r in (scene.result, scene.other)}  # 77: block before
    assert scene.result.coverage > scene.other.coverage + 0.1
    assert band["XAttention (antidiagonal)"] > 0.9 > band["XAttention (diagonal)"] + 0.1


def test_sorting_keys_covers_more_at_one_budget_and_sorts_back():
    how = {"input": "heavy", "block": 64, "segment_blocks": 4, "choose": "ratio", "kept_share": 0.25, "tokens": 2048}
    scene = facts(method="pbs_attn", **how, compare_with="pbs_none")
    assert scene.result.coverage > scene.other.coverage + 0.1
    label = next(label for label in scene.result.facts if label.startswith("output with every block kept"))
    assert float(scene.result.facts[label]) < 1e-5
    assert [curve.label for curve in scene.curves] == [
        "PBS-Attn, sorted keys", "PBS-Attn, random order", "PBS-Attn, unsorted"
    ]  # fmt: skip


@pytest.mark.parametrize("permute", ["keys", "queries", "both", "random"])
def test_any_sort_gives_plain_attention_back(permute):
    scene = facts(method="pbs_attn", input="heavy", tokens=256, block=16, permute=permute)
    label = next(label for label in scene.result.facts if label.startswith("output with every block kept"))
    assert float(scene.result.facts[label]) < 1e-5
    assert (scene.result.query_order is None) == (permute in ("keys", "random"))


def test_one_segment_is_full_attention_and_every_key_weighs():
    scene = facts(method="combiner", input="slash", tokens=64, segment_tokens=1)
    np.testing.assert_allclose(scene.result.effective, scene.result.attention, atol=1e-6)
    scene = facts(method="combiner", input="slash", tokens=64, pattern="logsparse", compare_with="combiner_alone")
    assert (scene.result.effective[40, :41] > 0).all() and (scene.other.effective[40] == 0).any()
    row = scene.query(40, {"method": "combiner", "pattern": "logsparse", "segment_tokens": 16})
    assert [len(region) for region in row.regions] == [8, 32] and "101000 in binary" in row.note


def test_a_query_beyond_the_text_becomes_its_last_one():
    view = explorer(input="slash", tokens=64, row=300).wait()
    assert view.row == 63 and view.left_canvas.marks["rows"] == [63]
    view.close()


def test_antidiagonals_of_an_even_stride_meet_no_slash_at_an_even_offset():
    how = {"input": "slash", "tokens": 256, "block": 32, "stride": 8, "width": 1, "column": 5}
    for delta, seen in ((76, False), (77, True)):
        result = facts(**how, delta=delta).result
        met = panel(result, "met")
        assert (np.diagonal(met, -delta) > 0).any() == seen and (met[:, 5] > 0).any()
        np.testing.assert_array_equal(met, result.attention * result.read)


def test_axial_regions_look_both_ways_and_log_sparse_ones_are_refused():
    scene = facts(method="combiner", input="minilm", tokens=64, pattern="axial_mixture", segment_tokens=8)
    assert (scene.result.effective > 0).all()
    view = explorer(method="combiner", input="minilm", tokens=64, pattern="logsparse")
    assert "defined for causal attention" in view.error and view.scene is None
    view.close()


def test_without_the_product_rows_of_a_segment_are_identical():
    how = {"method": "ponet", "input": "heavy", "tokens": 64, "segment_tokens": 16, "use_lmp": False}
    fused, bare = (facts(**how, fuse=fuse).result for fuse in (True, False))
    assert bare.facts["different output rows (counted)"] == "4 of 64"
    assert fused.facts["different output rows (counted)"] == "64 of 64"
    np.testing.assert_allclose(bare.maps["likeness"][:16, :16], 1, atol=1e-5)


def test_own_segments_come_and_go_with_a_click():
    view = explorer(method="ponet", input="slash", tokens=64, segment_rule="own", segment_starts="10 30").wait()
    try:
        view._pair_picked(view.left_canvas, 5, 30)
        assert view.segment_starts == "10"
        view._pair_picked(view.left_canvas, 5, 20)
        assert view.segment_starts == "10 20" and view.wait().scene.result.facts["segments"] == "3"
        view.segment_starts = "10 x"
        assert "'x' is not one" in view.wait().error
    finally:
        view.close()


def test_ponet_brings_its_own_encoder():
    view = explorer(input="lm", tokens=512).wait()
    try:
        view.method = "ponet"
        assert view.wait().error == "" and view.input == "ponet" and (view.layer, view.tokens) == (1, 256)
        assert "PoNet's own" in view.note and "lowered to 256" in view.note
        facts = view.scene.result.facts
        assert "PoNet's own" in facts["projections"] and facts["segments are"] == "sentences"
        view.method = "xattention"  # others can be run on it
        assert view.wait().error == "" and view.input == "ponet"
        view.input = "lm"
        view.method = "ponet"
        view.input = "lm"  # and so can PoNet on others
        assert view.wait().input == "lm" and view.scene.result.facts["projections"].startswith("stand-ins")
    finally:
        view.close()


def test_what_ponets_stories_say_is_seen():
    bare, ranges, twins, own = (facts(method="ponet", **story.state).result for story in methods()["ponet"].stories)
    sentences = int(bare.facts["segments"]) - 2
    assert sentences > 3 and bare.facts["different output rows (counted)"] == f"{sentences + 1} of 256"
    fused = facts(method="ponet", **(methods()["ponet"].stories[0].state | {"fuse": True})).result
    assert fused.facts["different output rows (counted)"] == "256 of 256"
    winners = ranges.maps["smp"]
    assert (winners.max(axis=0) == 0).mean() > 0.5 and (winners[[0, -1]] == 0).all()
    assert np.ptp(ranges.maps["ga"], axis=0).max() == 0
    words = facts(method="ponet", **methods()["ponet"].stories[2].state).tokens
    first, second, end = (i for i, word in enumerate(words) if word in ("The", "Lists"))
    alike = twins.maps["likeness"][first:second, second:end]
    assert (alike.argmax(axis=1) == np.arange(second - first)).all()
    assert own.facts["segments"] == "5"


def test_hovering_the_fused_output_names_token_and_channel():
    view = explorer(method="ponet", input="ponet", words="One is here. Two is there.", tokens=64, right="fused").wait()
    try:
        size = view.scene.result.maps["fused"]
        answer = view.right_canvas.query(2, 3, 7, 8)
        assert answer["labels"] == [view.scene.tokens[2], "channel 7"] and answer["between"] == "in"
        assert answer["value"] == pytest.approx(float(size[2, 7])) and size.shape == (len(view.scene.tokens), 32)
        view.segment_rule, view.segment_starts = "own", "3"
        view.wait()._pair_picked(view.right_canvas, 6, 30)
        assert view.segment_starts == "3 6"  # a channel is no key: the row's token begins a segment
    finally:
        view.close()


@pytest.mark.slow
def test_pictures_are_chosen_for_methods_that_need_them():
    view = explorer(input="slash", tokens=64).wait()
    try:
        view.method = "favit"
        assert view.wait().input == "landscape" and "now pixels" in view.note and view.error == ""
        maps = view.scene.query(2286, view.state)
        window, fused = "Swin window", "FaSA, dilation 1"
        assert maps.keys_met[window] == maps.keys_met[fused] == 49 == np.count_nonzero(maps.maps[window])
        assert maps.reach[fused] == 1 and maps.reach[window] == 49 / 56**2
        view._query_clicked([{"curve": 0, "x": 3, "y": 2}])
        assert view.row == 2 * 56 + 3
        view._query_clicked([{"curve": 1 + len(maps.maps), "x": 1, "y": 2}])
        assert view.place == 2 * 7 + 1
        view.input = "slash"
        assert "needs a picture" in view.error
    finally:
        view.close()
    linked = explorer(query="method=favit").wait()
    assert linked.error == "" and linked.scene.t == 56 * 56
    linked.close()


TRAINED = {"method": "sea", "input": "minilm", "layer": 3, "tokens": 128, "estimator": "trained_180"}


def test_a_trained_estimate_is_that_of_its_stages_head_for_head():
    model = minilm.load()
    ids = model.encode(texts.sample(12 * 128)[0])[:, :128]
    q, k, v = model.qkv(ids, 3)
    scene = facts(**TRAINED, group="causal_batch", head=5)
    found, seen = scene.result, stages(shipped(180), q, k, v, head=5)
    wanted = {name: getattr(seen, name) for name in ("estimate", "cells", "allowed", "effective", "attention")}
    wanted |= {"positions": seen.position, "linear": np.abs(seen.mixed)}
    for name, array in wanted.items():
        np.testing.assert_allclose(panel(found, name), array, atol=1e-6, err_msg=name)
        assert panel(found, name).dtype == (bool if name in ("cells", "allowed") else np.float32)
    assert np.abs(found.estimate - stages(shipped(180), q, k, v, head=6).estimate).max() > 0.01
    context = shipped(180)(q, k, v).context[0, 5]
    np.testing.assert_allclose(found.effective @ v[0, 5].numpy(), context, atol=1e-5)
    share = (seen.attention * seen.allowed).sum() / seen.attention.sum()
    assert found.coverage == pytest.approx(share, rel=1e-5)
    assert found.facts["training steps"].startswith("180,")
    told = found.facts["keys per query, head by head (measured)"].split()
    np.testing.assert_allclose([float(keys) for keys in told], seen.keys_by_head, rtol=5e-3)
    places = seen.mixed[:, :32]
    typical = places.mean(0)
    differ = [np.linalg.norm(row - typical) for row in places]
    label = next(label for label in found.facts if label.startswith("position half of the linear attention"))
    assert float(found.facts[label]) == pytest.approx(np.mean(differ) / np.linalg.norm(typical), rel=1e-3)
    for name in ("s_prob", "s_mix"):
        label = next(label for label in found.facts if name in label)
        assert float(found.facts[label]) == pytest.approx(getattr(seen, name).mean(), rel=1e-3)


def test_views_turn_budgets_of_their_own():
    few, many = (facts(**TRAINED, keys_per_query=keys, group="batch").result for keys in (4, 24))
    assert few.density < many.density and few.coverage < many.coverage
    assert (shipped(180).k, shipped(180).group) == (12, "causal_batch")


@pytest.mark.slow
def test_a_trained_estimator_brings_its_layer_along_and_goes_when_it_is_left():
    view = explorer(method="sea", input="slash", tokens=64, cells=16, head=31).wait()
    try:
        view.estimator = "trained_60"
        assert (view.input, view.layer, view.cells, view.head) == ("minilm", 3, 32, 11)
        assert "are trained for layer 3" in view.note and view.note.endswith("input and cells changed as well.")
        assert view.wait().error == "" and "60 steps" in view.scene.result.method
        with view.changes():
            view.keys_per_query, view.group, view.head, view.tokens = 4, "causal_batch", 2, 96
        view.estimator = "untrained"
        assert view.wait().estimator == "untrained" and view.error == view.note == ""
        for key, value in (("layer", 2), ("cells", 64), ("input", "lm")):
            view.estimator = "trained_180"
            setattr(view, key, value)
            assert view.estimator == "oracle" and getattr(view, key) == value
            assert view.note.endswith("for other inputs the oracle's estimate is used.") and view.wait().error == ""
        view.compare_with = "sea_untrained"
        assert view.input == "minilm" and view.note.endswith(": input changed as well.")
        view.layer = 0
        assert view.compare_with == "none" and view.wait().error == ""
    finally:
        view.close()


@pytest.mark.parametrize("asked", ["input=lm", "input=minilm&layer=2", "input=minilm&layer=3&cells=64", "input=file"])
def test_a_link_to_what_no_estimator_knows_is_refused(asked):
    linked = explorer(query=f"method=sea&estimator=trained_180&{asked}")
    try:
        assert linked.scene is None
        assert linked.error == (
            "SEA's estimators are trained for layer 3 of the MiniLM encoder (both directions), with 32 cells: choose "
            "that input, or take the oracle's estimate."
        )
    finally:
        linked.close()


def test_what_is_too_long_is_lowered_or_refused_before_work():
    view = explorer(input="heavy", tokens=4096, method="formula")
    try:
        view.wait()
        view.method = "combiner"
        assert view.tokens == 1024 and "lowered to 1,024" in view.note
    finally:
        view.close()
    linked = explorer(query="input=heavy&tokens=4096&method=combiner")
    assert "takes up to 1,024 tokens" in linked.error and linked.scene is None
    linked.close()


@pytest.mark.slow
def test_block_masks_of_65536_tokens():
    scene = facts(input="slash", tokens=65536, block=128, stride=16, threshold=0.3, left="estimate", right="keep")
    assert scene.t == 65536 and scene.result.keep.shape == (512, 512) and scene.query is None
    assert scene.result.attention is None and 0 < scene.result.density < 1


def test_a_formula_keeps_the_causal_rule_and_edge_blocks_count_as_what_they_are():
    """65 tokens, blocks of 64: the first block holds 64 * 65 / 2 of the 65 * 66 / 2 causal pairs."""
    view = explorer(method="formula", input="slash", tokens=65, formula="q < 64 and k < 64", block=64).wait()
    try:
        assert view.error == "" and view.scene.result.density == 64 * 65 / (65 * 66)
        told = view._facts.value
        assert (
            "2,080 of 2,145 in dense attention (97.0%)" in told
            and "1 of 3 in dense attention (33.3%); 64 x 64 tokens each" in told
        )
        assert view.scene.result.facts["pairs of the formula that look ahead, left out (counted)"] == "2,016"
        assert not np.triu(view.scene.result.allowed, 1).any()
    finally:
        view.close()


def test_own_text_is_read():
    view = explorer(words="one two three. " * 20, tokens=64, layer=0, head=0).wait()
    try:
        assert view.error == "" and "your text" in view.scene.source
        assert "".join(view.scene.tokens).startswith("one two three. one two")
        view.words = "one two three. " * 200
        assert view.wait().error == "" and "too long for a link" in view.note
    finally:
        view.close()


def test_sources_say_what_they_read():
    for key, source in sources().items():
        assert source.knobs or source.pictures, key
        assert 64 <= source.limits["tokens"] <= 65536


@pytest.mark.parametrize(("source", "kind"), [("slash", "counted"), ("lm", "measured")])
def test_what_trained_weights_made_is_measured_everywhere(source, kind):
    view = explorer(input=source, tokens=64).wait()
    try:
        assert view.scene.kind == view.scene.query(3, view.state).kind == view.kind == kind
        assert f"on the pairs kept ({kind})" in view._facts.value and f"({kind})" in view._query_pane.spec
    finally:
        view.close()


def test_a_sources_limits_follow_its_settings():
    view = explorer(input="slash", tokens=64).wait()
    try:
        shown = {knob.key: knob for knob in view._shown_knobs()}
        assert shown["column"].high == 63
    finally:
        view.close()
