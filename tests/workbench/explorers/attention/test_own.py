"""A reader's own heads: files of queries and keys, of attention matrices and masks, arrays, layers of a model."""

import io

import numpy as np
import pytest
import torch

from workbench.explorers.attention.explorer import capture, explore, explorer
from workbench.explorers.attention.own import from_arrays, from_call, from_matrix, read_attention
from workbench.models.attention.call import attention_call
from workbench.models.attention.dense_attention import attention_weights


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def attention_of(given, head=0):
    return attention_weights(given.all_q, given.all_k, causal=given.causal)[0, head].numpy()


def test_own_file_is_shown_and_bad_ones_are_named(rng):
    q, k = rng.standard_normal((2, 3, 40, 8))
    given = read_attention(npz(q=q, k=k), "mine.npz")
    np.testing.assert_allclose(given.q[0, 0], q[0], rtol=1e-6)
    np.testing.assert_allclose(given.v, given.k)
    for content, words in (
        (b"not a zip", "is no .npy array"),
        (npz(q=q), "must be attention weights or a bool mask"),
        (npz(q=q, keys=k), "must hold arrays q and k, or one matrix named attention or mask; it has q, keys"),
        (npz(), "holds no arrays"),
        (npz(q=np.ones((0, 4)), k=np.ones((0, 4))), "q is empty"),
        (npz(q=q[:, None, None], k=k), "must be floats"),
        (npz(q=np.full((4, 2), 1e300), k=np.ones((4, 2))), "too large for float32"),
        (npz(q=np.zeros((65537, 1), np.float16), k=np.zeros((65537, 1), np.float16)), "65,537 tokens; at most 65,536"),
        (npz(q=q, k=k[:, :5]), "a query for every key"),
        (npz(q=q, k=k[:2]), "in as many heads or a divisor of them"),
        (npz(q=q, k=k[..., :5]), "of the same width"),
        (npy(np.zeros((3, 40, 39))), r"shape \(.., t, t\), got float64 \(3, 40, 39\)"),
        (npy(np.zeros((5000, 5000), bool)), "5,000 tokens; at most 4,096"),
        (npy(-np.eye(3)), "not negative; apply softmax"),
        (npz(q=q.astype(int), k=k), "must be floats"),
        (npz(q=np.full((4, 2), np.nan), k=np.ones((4, 2))), "NaN"),
        (npz(q=np.array([{}], object), k=k), "q holds Python objects, which are not read"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            read_attention(content, "bad.npz")
        assert str(error.value).startswith("bad.npz")
    for dtype in ("float16", ">f4", ">f8"):
        given = read_attention(npz(q=q.astype(dtype), k=k.astype(dtype), v=np.asfortranarray(k.astype(dtype))))
        np.testing.assert_array_equal(given.all_q[0], q.astype(dtype).astype("float32"))
        np.testing.assert_array_equal(given.all_v[0], k.astype(dtype).astype("float32"))


def test_own_file_is_drawn(rng):
    q, k = rng.standard_normal((2, 3, 40, 8))
    view = explorer(input="file", head=1).wait()
    try:
        assert "There is no file yet" in view.error
        view._uploaded("mine.npz", npz(q=q, k=k))
        logits = q[1] @ k[1].T / 8**0.5 + np.where(np.tri(40), 0, -np.inf)
        wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(view.wait().scene.result.attention, wanted, rtol=1e-4, atol=1e-6)
        assert view.error == ""
        view._uploaded("large.npz", bytes(64_000_001))
        assert "the limit is 64,000,000; open it in a notebook of your own" in view.error
    finally:
        view.close()


def test_grouped_heads_wide_values_and_bfloat16_files(rng):
    q, k, v = rng.standard_normal((4, 40, 8)), rng.standard_normal((2, 40, 8)), rng.standard_normal((2, 40, 5))
    given = read_attention(npz(q=q, k=k, v=v))
    np.testing.assert_allclose(given.all_k[0], np.repeat(k, 2, axis=0), rtol=1e-6)
    assert given.all_v.shape == (1, 4, 40, 5)
    assert read_attention(npz(q=q[0], k=k[0], v=v[0])).all_v.shape == (1, 1, 40, 5)
    held = [torch.tensor(x).bfloat16() for x in (q, k)]
    bits = [x.view(torch.int16).numpy().view("V2") for x in held]
    np.testing.assert_array_equal(read_attention(npz(q=bits[0], k=bits[1])).all_q[0], held[0].float())
    np.testing.assert_array_equal(from_arrays(*held).all_q[0], held[0].float())


@pytest.mark.parametrize("causal", [True, False])
def test_an_attention_matrix_is_the_attention_that_is_shown(causal, rng):
    weights = rng.random((2, 30, 30)) ** 3 * (np.tri(30) if causal else 1)
    weights /= weights.sum(axis=2, keepdims=True)
    for given in (from_matrix(weights), read_attention(npy(weights)), read_attention(npz(attention=weights[None]))):
        assert given.causal == causal and given.all_q.shape[1] == 2
        np.testing.assert_allclose(attention_of(given, 1), weights[1], atol=1e-6)
    assert from_matrix(np.eye(3) + (0 if causal else np.eye(3, k=1))).causal == causal


def test_a_mask_is_shown_as_uniform_attention_over_its_pairs(rng):
    mask = rng.random((30, 30)) < 0.3
    mask[:, 0] = True
    given = read_attention(npy(mask))
    np.testing.assert_allclose(attention_of(given), mask / mask.sum(axis=1, keepdims=True), atol=1e-6)
    mask[3] = False
    assert from_matrix(np.eye(3)).title == "your matrix"
    assert from_matrix(mask).title == "your matrix (rows that hold nothing are shown as uniform attention)"
    view = explore(mask, method="xattention", block=16).wait()
    try:
        assert view.error == "" and view.state["input"] == "file"
        np.testing.assert_allclose(view.scene.result.attention[5], mask[5] / mask[5].sum(), atol=1e-6)
    finally:
        view.close()


@pytest.mark.parametrize("kind", ["bool", "added"])
def test_masks_and_scales_join_the_scores(kind, rng):
    q, k = (torch.tensor(rng.standard_normal((1, 2, 20, 8))) for _ in range(2))
    hidden = torch.tensor(rng.random((1, 1, 20, 20)) < 0.3) & ~torch.eye(20, dtype=torch.bool)
    mask = ~hidden if kind == "bool" else torch.randn(1, 1, 20, 20).masked_fill(hidden, -torch.inf)
    call = attention_call("test", q, k, q, causal=True, scale=0.2, attn_mask=mask)
    added = torch.zeros(20, 20) if kind == "bool" else mask
    wanted = torch.softmax(
        (0.2 * q @ k.mT + added).masked_fill(hidden | ~torch.ones(20, 20).tril().bool(), -torch.inf), -1
    )
    np.testing.assert_allclose(attention_of(from_call(call, "mine"), 1), wanted[0, 1], atol=1e-5)


def test_layers_of_a_model_can_be_turned():
    transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 99}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=2, num_key_value_heads=2, **sizes))
    found = capture(model, {"input_ids": torch.arange(3, 67)[None]})
    view = explore(found, layer=1, head=3).wait()
    try:
        assert view.error == "" and view.scene.source == "Your model, layer 1, head 3"
        call = found[1].call
        keys = call.k.repeat_interleave(2, 1)
        np.testing.assert_allclose(view.scene.result.attention, attention_weights(call.q, keys)[0, 3], atol=1e-5)
    finally:
        view.close()
    with pytest.raises(ValueError, match="there is no tokenizer where LlamaForCausalLM was loaded from"):
        capture(model, "a text")


def test_arrays_that_do_not_fit_are_named(rng):
    q = rng.standard_normal((2, 20, 4))
    for arguments, words in (
        ((q, q[:, :5]), "with as many tokens"),
        ((q.astype(int), q), "explore: q must be floats"),
        ((q, np.full(q.shape, np.nan)), "k holds NaN"),
        ((np.zeros((2, 2, 20, 4)), q), "q must be floats of shape"),
    ):
        with pytest.raises(ValueError, match=words):
            explore(*arguments)
    with pytest.raises(ValueError, match="attn_mask must broadcast"):
        explore(q, q, attn_mask=np.ones((20, 19), bool))
    long = np.zeros((4097, 1), np.float32)
    with pytest.raises(ValueError, match="4,097 tokens; at most 4,096 are read"):
        from_arrays(long, long, attn_mask=np.ones((1, 4097), bool))
