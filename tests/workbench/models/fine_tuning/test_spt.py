"""SPT in one call: begins at the model, trains what it should, in models of ours and of others, and what it counts."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.fine_tuning.adapt import adapt
from workbench.models.fine_tuning.routed_ffn import RoutedFFN
from workbench.models.fine_tuning.spt import LoRAEmbedding, SPTLinear, memory_model, upgrade
from workbench.models.fine_tuning.spt_attention import PQAttention
from workbench.models.fine_tuning.training import train
from workbench.models.language.tiny_lm import TinyConfig, TinyLM
from workbench.models.vision.digit_vit import DigitViT, ViTConfig

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.randint(40, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def language_model():
    return TinyLM(TinyConfig(vocabulary=40, layers=2, heads=2, width=32, hidden=48, context=64)).eval()


def opt(**how):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
             "max_position_embeddings": 64, "word_embed_proj_dim": 32, "dropout": 0.0}  # fmt: skip
    return transformers.OPTForCausalLM(transformers.OPTConfig(**(sizes | how))).eval()


def loss_of(up):
    def loss(model, ids):
        logits = model(ids, attention=up.attend)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()) + up.auxiliary_loss()

    return loss


# Low-rank paths -------------------------------------------------------------------------------------------------------
def test_low_rank_paths_begin_at_the_model_and_are_their_formula():
    base, rows, x = nn.Linear(6, 4), nn.Embedding(9, 5), torch.randn(3, 6)
    layer, table = SPTLinear(base, 3), LoRAEmbedding(rows, 3)
    ids = torch.tensor([[0, 8], [3, 3]])
    assert torch.equal(layer(x), base(x)) and torch.equal(table(ids), rows(ids))
    layer.B.data.normal_(), table.B.data.normal_()
    torch.testing.assert_close(layer(x), base(x) + x @ layer.A.T @ layer.B.T)
    torch.testing.assert_close(table(ids), (rows.weight + table.A @ table.B.T)[ids])
    assert 0.8 < float(SPTLinear(nn.Linear(400, 4), 16).A.detach().std()) < 1.2
    assert not any(p.requires_grad for p in (base.weight, rows.weight)) and table.weight is rows.weight
    for odd in (nn.Linear(2, 2), nn.Embedding(3, 2, max_norm=1.0)):
        with pytest.raises(TypeError, match="LoRAEmbedding: base must be"):
            LoRAEmbedding(odd)


def test_the_part_that_merges_is_a_method(language_model):
    tuning = adapt(language_model, "spt", r=4)
    layer = tuning.layers["layers.0.gate"]
    assert type(layer) is SPTLinear and layer.A.shape == (4, 32) and tuning.by.knobs == {"r": 16}
    layer.B.data.normal_()
    torch.testing.assert_close(tuning.merge()(IDS), tuning.model(IDS))


# The upgrade ----------------------------------------------------------------------------------------------------------
def test_low_rank_paths_alone_and_the_stage_of_dense_attention_change_nothing(language_model, assert_close):
    up = upgrade(language_model, ("lora", "warm_up"), d_lora=3)
    assert_close(up.model(IDS, attention=up.attend), language_model(IDS))
    assert len(up.lora) == 2 * 7 + 2 and isinstance(up.model.embedding, LoRAEmbedding)
    assert up.stages == ("lora", "warm_up") and all(not each.sparse for each in up.attention.values())


def test_all_blocks_and_all_keys_change_nothing(language_model, assert_close):
    up = upgrade(language_model, d_lora=3, active=4, sparse_coeff=1)
    for ffn in up.ffn.values():
        nn.init.zeros_(ffn.router.weight), nn.init.zeros_(ffn.router.bias)
    assert_close(up.model(IDS, attention=up.attend), language_model(IDS))


def test_stages_follow_each_other_in_place(language_model):
    at_once, up = upgrade(language_model, d_lora=3), upgrade(language_model, ("lora",), d_lora=3)
    thin = up.lora["layers.1.down"]
    thin.B.data.normal_()
    for stage in ("ffn", "warm_up", "mha"):
        assert upgrade(up, (stage,), d_lora=3) is up
    assert up.stages == ("lora", "ffn", "warm_up", "mha") and at_once.stages == ("lora", "ffn", "mha")
    assert sorted(up.ffn) == ["layers.0", "layers.1"] and up.ffn["layers.1"].lora["fc2"].B is thin.B
    assert sorted(up.lora) == sorted(at_once.lora) and len(up.lora) == 2 * 4 + 2
    assert all(each.sparse for each in up.attention.values())
    names = lambda each: {name for name, p in each.model.named_parameters() if p.requires_grad}  # noqa: E731
    assert names(up) == names(at_once)


def test_what_is_trained_and_what_is_not(language_model):
    before = {name: p.clone() for name, p in language_model.named_parameters()}
    up = upgrade(language_model, d_lora=3)
    up.init_codebooks(lambda: up.model(IDS, attention=up.attend))
    state = {name: p.detach().clone() for name, p in up.model.named_parameters()}
    asked = {name for name, p in up.model.named_parameters() if p.requires_grad}
    words = {"A", "B", "codebook", "weight", "bias"}
    assert {name.rsplit(".", 1)[1] for name in asked} <= words
    for name in asked:
        assert any(part in name for part in ("lora", "router", "codebook", "norm", ".A", ".B")), name
    up.model.train()
    done = train(up.model, loss_of(up), lambda step: IDS, steps=6, rate=1e-2, parameters=up.parameters())
    moved = {name for name, p in up.model.named_parameters() if not torch.equal(p, state[name])}
    assert moved == asked and done.losses[-1] < done.losses[0]
    assert all(p.grad is None for name, p in up.model.named_parameters() if name not in asked)
    assert all(torch.equal(p, before[name]) for name, p in language_model.named_parameters())


def test_the_codebooks_loss_counts_a_hundredth(language_model):
    up = upgrade(language_model, ("mha",))
    up.model.train()
    up.model(IDS, attention=up.attend)
    each = [attention._loss for attention in up.attention.values()]
    torch.testing.assert_close(up.auxiliary_loss(), 0.01 * (each[0] + each[1]))
    assert up.auxiliary_loss() == 0


def test_codewords_are_placed_among_real_queries_and_keys(language_model):
    up = upgrade(language_model, ("mha",), sparse_coeff=4)
    q, k, _ = language_model.qkv(IDS, 0)
    attention = up.attention["layers.0"]

    def error():
        return float((attention.quantizer.quantize(q) - q).square().mean().detach())

    before, mass = error(), float(attention.attention_mass(q, k).mean())
    up.init_codebooks(lambda: up.model(IDS, attention=up.attend))
    assert error() < before / 2 and 0 < mass < 1 and attention.seen is None
    with pytest.raises(ValueError, match=r"run did not reach the attention of 'layers\.0'"):
        up.init_codebooks(lambda: None)
    with pytest.raises(ValueError, match="no upgraded attention"):
        upgrade(language_model, ("lora",)).init_codebooks(lambda: None)


def test_seeds_decide(language_model):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    books = [
        upgrade(language_model, ("mha",), seed=seed).attention["layers.0"].quantizer.codebook for seed in (1, 1, 2)
    ]
    assert torch.equal(books[0], books[1]) and not torch.equal(books[0], books[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_vision_transformer_takes_the_parts_that_it_has(assert_close):
    torch.manual_seed(0)
    model = DigitViT(ViTConfig(width=16, heads=2, layers=1, hidden=32)).eval()
    up, x = upgrade(model, ("lora", "ffn"), active=4, d_lora=2, act="gelu"), torch.rand(3, 8, 8)
    nn.init.zeros_(up.ffn["blocks.0"].router.weight), nn.init.zeros_(up.ffn["blocks.0"].router.bias)
    assert_close(up.model(x), model(x))
    with pytest.raises(ValueError, match=r"build its attention with SparseMHA\.from_pretrained"):
        upgrade(model, ("mha",))


def test_a_hugging_face_decoder(assert_close):
    model = opt()
    plain = model(IDS).logits
    up = upgrade(model, sparse_coeff=1, active=4, d_lora=2)
    for ffn in up.ffn.values():
        nn.init.zeros_(ffn.router.weight), nn.init.zeros_(ffn.router.bias)
    assert_close(up.model(IDS).logits, plain)
    assert sorted(up.ffn) == ["model.decoder.layers.0", "model.decoder.layers.1"]
    assert sorted(up.attention) == [f"model.decoder.layers.{i}.self_attn" for i in (0, 1)]
    real = torch.ones_like(IDS)
    real[1, :5] = 0  # a padded batch, whose real tokens see what they saw
    assert_close(up.model(IDS, attention_mask=real).logits[1, 5:], model(IDS, attention_mask=real).logits[1, 5:])
    sparse = upgrade(model, ("mha",), sparse_coeff=8)
    assert not torch.allclose(sparse.model(IDS).logits, plain, atol=1e-4)
    copied = copy.deepcopy(sparse.model)  # its codebooks are its own
    for module in copied.modules():
        if isinstance(module, PQAttention):
            nn.init.zeros_(module.quantizer.codebook)  # all codes alike: the first keys are taken
    assert not torch.allclose(copied(IDS).logits, sparse.model(IDS).logits, atol=1e-5)
    assert_close(model(IDS).logits, plain)


def test_a_hugging_face_model_that_is_trained():
    up = upgrade(opt(), d_lora=2)
    up.init_codebooks(lambda: up.model(IDS))
    done = train(up.model.train(), lambda m, ids: m(ids, labels=ids).loss + up.auxiliary_loss(), lambda step: IDS,
                 steps=4, rate=1e-2, parameters=up.parameters())  # fmt: skip
    assert done.losses[-1] < done.losses[0]
    for each in up.attention.values():
        assert each.quantizer.codebook.grad is None or torch.isfinite(each.quantizer.codebook.grad).all()


def test_a_hugging_face_encoder(assert_close):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    model = transformers.BertModel(config).eval()
    up = upgrade(model, sparse_coeff=1, active=4, d_lora=2, act="gelu")
    for ffn in up.ffn.values():
        nn.init.zeros_(ffn.router.weight), nn.init.zeros_(ffn.router.bias)
    assert sorted(up.ffn) == ["encoder.layer.0"] and isinstance(up.ffn["encoder.layer.0"], RoutedFFN)
    assert_close(up.model(IDS).last_hidden_state, model(IDS).last_hidden_state)
    sparse = upgrade(model, ("mha",), sparse_coeff=4)
    assert sparse.model(IDS).last_hidden_state.shape == (2, 16, 32)


def test_what_does_not_fit_is_refused(language_model):
    with pytest.raises(ValueError, match="stages must be some of lora, ffn, warm_up, mha; got 'moe'"):
        upgrade(language_model, ("moe",))
    with pytest.raises(ValueError, match="no feed-forward layer of two linear ones named fc1, fc2"):
        upgrade(nn.Sequential(nn.Linear(2, 2)), ("ffn",))
    with pytest.raises(ValueError, match=r"no torch\.nn\.Linear or Embedding"):
        upgrade(nn.Sequential(nn.ReLU()), ("lora",))
    with pytest.raises(ValueError, match="d_codeword must divide the width of a head, 16"):
        upgrade(language_model, ("mha",), d_codeword=5)
    with pytest.raises(ValueError, match="multiple of sparse_coeff=8, got 12"):
        up = upgrade(language_model, ("mha",))
        up.model(IDS[:, :12], attention=up.attend)


# Counts ---------------------------------------------------------------------------------------------------------------
def test_memory_worked_out_by_hand():
    found = memory_model(512, 64, 16, 64, batch=2)
    heads = 32
    assert found["values_ratio"] == 8 == found["dense_weights"] / found["sparse_values"]
    assert found["dense_weights"] == heads * 512 * 512 * 4 and found["dense_attention"] == 2 * found["dense_weights"]
    assert found["slots"] == heads * 512 * 64 and found["sparse_indices"] == 4 * found["slots"]
    assert found["entries"] == heads * sum(min(i + 1, 64) for i in range(512))
    assert found["codes"] == 2 * heads * 512 * 8 and found["row_starts"] == 8 * (heads * 512 + 1)
    assert found["hidden_dense"] == 2 * 512 * 4096 * 4 == 2 * found["hidden_routed"]
    assert found["scores_dense_flops"] == heads * 2 * 512 * 512 * 64
    assert found["encode_flops"] == heads * 4 * 512 * 16 * 64
    assert found["match_compares"] == heads * 8 * 512 * 513 / 2
    assert found["scores_sparse_flops"] == 2 * 64 * found["entries"]
    assert found["ffn_dense_flops"] == 4 * 2 * 512 * 1024 * 4096
    assert found["ffn_routed_flops"] == found["ffn_dense_flops"] / 2 + 2 * 2 * 512 * 1024 * 4
    free = memory_model(8, 16, 1, 2, causal=False, d_ff=12, G=3, active=1, M=4, itemsize=2)
    assert free["entries"] == free["slots"] == 16 and free["match_compares"] == 256 and free["hidden_routed"] == 64
    for how, told in (({"L": 9}, "L must be"), ({"active": 5}, "active"), ({"d_ff": 9}, "multiple of G=4, got 9")):
        with pytest.raises(ValueError, match=told):
            memory_model(**({"n": 8, "d": 8, "h": 1, "L": 2} | how))
