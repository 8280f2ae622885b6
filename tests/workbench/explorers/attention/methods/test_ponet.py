"""What PoNet's poolings read of a head: the trained module's own parts and output, segments, special tokens."""

import numpy as np
import pytest
import torch

from workbench.explorers.attention.methods.ponet import METHOD, pooled, projections, segment_index, sentence_starts
from workbench.explorers.attention.source import load_input, of_head, sources
from workbench.models.attention import ponet_training
from workbench.models.attention.ponet import pooling_fusion

WORDS = "The list is sorted in place. It returns None: no copy is made. A tuple cannot be sorted.\n\nSets have no order"
SETTINGS = {"segment_rule": "sentences", "segment_tokens": 8, "segment_starts": "", "fuse": True}
SETTINGS |= {f"use_{name}": True for name in ("ga", "smp", "lmp")}
HEADS = [(0, 0), (1, 2)]


def given(layer=1, head=2, words=WORDS):
    return load_input("ponet", words=words, layer=layer, head=head)


def inside(layer, words=WORDS):
    """The mixing layer of the shipped encoder, its input, and what it hands to its output projection."""
    trained = ponet_training.shipped()
    text = ponet_training.encode(trained, words)
    mixing, seen = trained.model.encoder.mixings[layer], {}
    hooks = [
        mixing.register_forward_pre_hook(lambda module, args: seen.update(x=args[0])),
        mixing.out.register_forward_pre_hook(lambda module, args: seen.update(pooled=args[0])),
    ]
    trained.model.encoder(text.ids, text.segments, special=text.special)
    for hook in hooks:
        hook.remove()
    return mixing, seen["x"], seen["pooled"]


@pytest.mark.parametrize("layer, head", HEADS)
def test_parts_are_the_projections_of_the_trained_module(layer, head, assert_close):
    shown = given(layer, head)
    mixing, x, _ = inside(layer)
    here = slice(32 * head, 32 * head + 32)
    parts = projections(shown)
    for found, project in zip(
        (parts.hq[0], parts.hk[0], parts.hs, parts.hl, parts.ho),
        (mixing.q, mixing.k, mixing.s, mixing.l, mixing.o),
        strict=True,
    ):
        assert_close(found, project(x)[..., here])
    assert torch.equal(shown.q, parts.hq) and torch.equal(shown.k, parts.hk) and torch.equal(shown.v, parts.hk)
    assert "PoNet's own" in METHOD.trace(shown, SETTINGS).facts["projections"]


@pytest.mark.parametrize("layer, head", HEADS)
def test_the_fused_parts_are_the_output_of_the_trained_module(layer, head, assert_close):
    shown = given(layer, head)
    wanted = inside(layer)[2][..., 32 * head : 32 * head + 32]
    g, _, s, l = pooled(projections(shown), segment_index(shown, SETTINGS))
    assert_close(pooling_fusion(g, s, l, projections(shown).ho), wanted)
    assert_close(METHOD.runs(shown, SETTINGS, None)["pool"](), wanted)
    assert_close(METHOD.trace(shown, SETTINGS).maps["fused"], wanted[0].abs())
    assert np.abs(METHOD.trace(shown, SETTINGS | {"fuse": False}).maps["fused"] - wanted[0].abs().numpy()).max() > 0.1


def test_sentences_are_segments_and_special_tokens_stand_alone():
    shown = given()
    index = segment_index(shown, SETTINGS)
    sentences = ["".join(np.array(shown.tokens)[index == i]) for i in range(int(index.max()) + 1)]
    assert sentences == [
        "[CLS]", "Thelistissortedinplace.", "ItreturnsNone:", "nocopyismade.", "Atuplecannotbesorted.",
        "Setshavenoorder", "[SEP]",
    ]  # fmt: skip
    t = len(index)
    own = segment_index(shown, SETTINGS | {"segment_rule": "own", "segment_starts": "4 9"})
    assert (np.flatnonzero(own.diff()) + 1).tolist() == [1, 4, 9, t - 1]
    none = segment_index(shown, SETTINGS | {"segment_rule": "own", "segment_starts": ""})
    assert none.tolist() == [0, *[1] * (t - 2), 2]
    equal = segment_index(shown, SETTINGS | {"segment_rule": "equal"})
    assert (np.flatnonzero(equal.diff()) + 1).tolist() == sorted({1, *range(8, t, 8), t - 1})
    assert METHOD.trace(shown, SETTINGS).facts["segments are"] == "sentences"


def test_equal_parts_where_there_is_no_text():
    bare = load_input("heavy", tokens=64)
    assert segment_index(bare, SETTINGS).tolist() == [i // 8 for i in range(64)]
    assert METHOD.trace(bare, SETTINGS).facts["segments are"] == "equal parts of 8 tokens"


def test_sentences_begin_after_a_full_stop_or_an_empty_line():
    tokens = ("", "One", " two", ".", " Three", "\n\n", "Four", " five", ":", "\n", " six")
    assert sentence_starts(tokens) == [4, 6, 10]


def test_special_tokens_read_the_global_part_only():
    shown = given()
    seen = METHOD.trace(shown, SETTINGS)
    ends = [0, seen.t - 1]
    np.testing.assert_allclose(seen.effective.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(seen.effective[ends], seen.maps["ga"][ends], atol=1e-6)
    for name in ("smp", "lmp"):
        assert (seen.maps[name][ends] == 0).all() and (seen.maps[name][:, ends] == 0).all()
        np.testing.assert_allclose(seen.maps[name][1:-1].sum(1), 1, atol=1e-5)
    bare = METHOD.trace(shown, SETTINGS | {"use_ga": False})
    assert (bare.maps["fused"][ends] == 0).all() and (bare.effective[ends] == 0).all()


def test_stand_ins_are_named():
    q, k, v = torch.randn(3, 1, 2, 20, 4, generator=torch.Generator().manual_seed(0))
    shown = of_head("made up", q, k, v, 1, causal=False)
    parts = projections(shown)
    assert torch.equal(parts.hs, v[:, 1]) and torch.equal(parts.hl, v[:, 1]) and torch.equal(parts.ho, q[:, 1])
    seen = METHOD.trace(shown, SETTINGS)
    assert seen.facts["projections"].startswith("stand-ins") and seen.facts["segments"] == 3
    np.testing.assert_allclose(seen.effective.sum(1), 1, atol=1e-5)


def test_without_the_product_rows_of_a_sentence_are_identical():
    shown = given()
    index = segment_index(shown, SETTINGS)
    bare = METHOD.trace(shown, SETTINGS | {"fuse": False, "use_lmp": False})
    assert bare.facts["different output rows (counted)"] == f"{int(index.max())} of {bare.t}"  # [CLS], [SEP] alike
    np.testing.assert_allclose(bare.maps["likeness"][index[:, None] == index], 1, atol=1e-5)
    fused = METHOD.trace(shown, SETTINGS | {"use_lmp": False})
    assert fused.facts["different output rows (counted)"] == f"{fused.t} of {fused.t}"


@pytest.mark.parametrize("source", [key for key, source in sources().items() if not source.pictures])
def test_every_input_with_words_can_be_run(source):
    shown = load_input(source, tokens=64, layer=1, head=1)
    seen = METHOD.trace(shown, SETTINGS | {"segment_rule": "equal"})
    np.testing.assert_allclose(seen.effective.sum(axis=1), 1, atol=1e-5)
    assert seen.facts["segments"] == (10 if shown.parts else 8)  # [CLS] and [SEP] stand alone
    assert bool(shown.parts) == (source == "ponet") == ("PoNet's own" in seen.facts["projections"])
