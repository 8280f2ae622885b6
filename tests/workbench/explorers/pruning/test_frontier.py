"""Points of every method on a small model: counts by hand, order of qualities, kernels equal to the weights."""

import copy

import numpy as np
import pytest
import torch

from workbench.explorers.pruning import frontier
from workbench.explorers.pruning.method import VALUE_BITS, methods
from workbench.models.sparse_inference.statistics import gather_gradients, gather_statistics, linear_layers

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = 2 * (32 * 64 + 64 * 32)
ONE_SHOT = [key for key, by in methods().items() if by.one_shot]
MASKED = [key for key in ONE_SHOT if methods()[key].masks]
FACTORS = [key for key in ONE_SHOT if not methods()[key].masks and key != "quant"]  # they leave no single weight out
MULTIPLIED = [key for key in ONE_SHOT if key != "quant"]  # by a kernel, as they are stored


def held(made):
    """How many values are stored."""
    return sum(bits for kind, bits in made.bits.items() if kind != "indices") / VALUE_BITS


@pytest.mark.parametrize("key", MASKED)
def test_every_method_leaves_out_what_its_level_says(key, small):
    by = methods()[key]
    for level in by.levels:
        made = frontier.compress_layers(small, by, level)
        assert set(made) == set(linear_layers(small.load()))
        gone = 1 - int(level[0]) / int(level[2]) if ":" in level else float(level)
        for each in made.values():
            assert each.weight.dtype == np.float32 and not each.weight[~each.kept].any()
            size = 1 if key != "blocks_16" else 256  # a matrix has eight blocks of 16 x 16
            assert abs(each.kept.size * gone - (~each.kept).sum()) <= max(size, 0.51 * 64)
            assert each.multiply_adds == each.kept.sum()
            assert each.bits["values"] == 16 * each.kept.sum()
            assert each.bits["indices"] > 0


@pytest.mark.parametrize("key", MULTIPLIED)
def test_kernels_multiply_with_the_weights_they_were_packed_from(key, small, rng, assert_close):
    by = methods()[key]
    for each in frontier.compress_layers(small, by, by.levels[0]).values():
        product, size = each.pack()
        x = rng.standard_normal((each.weight.shape[1], 7)).astype(np.float32)
        assert_close(product(x), each.weight @ x)
        assert size >= 4 * (each.kept.sum() if by.masks else held(each))


@pytest.mark.parametrize("key", ["svd", "asvd"])
def test_factors_hold_the_values_that_a_level_leaves(key, small):
    """By hand: the share c of 32 x 64 weights leaves rank floor(c 2,048 / 96): 10 at one half, and 2 at nine tenths."""
    for level, rank in (("0.5", 10), ("0.9", 2)):
        for each in frontier.compress_layers(small, methods()[key], level).values():
            assert each.kept is None and np.linalg.matrix_rank(each.weight, tol=1e-4) == rank
            assert each.bits == {"dense factors": 16 * rank * 96} and each.multiply_adds == rank * 96


def test_a_dictionary_holds_the_values_that_a_level_leaves(small):
    """By hand, at one half: 1,024 / (32 + 64 / 2) = 16 atoms, 8 for each output; 1,024 / (64 + 16) = 12, and 6."""
    made = frontier.compress_layers(small, methods()["cospadi"], "0.5")
    for name, (k, s) in (("layers.0.0", (16, 8)), ("layers.0.2", (12, 6))):
        m, n = made[name].weight.shape
        assert made[name].bits == {"dense factors": 16 * n * k, "values": 16 * m * s, "indices": m * k}
        assert made[name].multiply_adds <= n * k + m * s


def test_dense_sparse_blocks_hold_the_values_that_a_level_leaves(small):
    """By hand, at one half: of 64 x 32, 1,024 / (64 + 128) = 5 a row and 22 atoms; of 32 x 64, 512 / 160 = 3 and 13."""
    made = frontier.compress_layers(small, methods()["dsformer"], "0.5")
    for name, blocks, m, r, s in (("layers.0.0", 1, 64, 22, 5), ("layers.0.2", 2, 32, 13, 3)):
        places = min(r, s * (r - 1).bit_length())
        wanted = {"dense factors": 16 * 32 * r, "values": 16 * m * s, "indices": m * places}
        assert made[name].bits == {kind: blocks * bits for kind, bits in wanted.items()}
        assert made[name].multiply_adds == blocks * (32 * r + m * s) and made[name].kept is None


def test_factors_fitted_to_the_inputs_change_the_outputs_less_and_the_weights_more(small):
    points = {key: frontier.judged_point(small, methods()[key], "0.5") for key in ("svd", "asvd", "cospadi")}
    error = {key: point.quality["output_error"] for key, point in points.items()}
    weight = {key: sum(each.weight_error for each in point.layers) for key, point in points.items()}
    assert error["cospadi"] < error["asvd"] < error["svd"] and weight["svd"] < weight["asvd"]
    assert [each.density for each in points["svd"].layers] == [1.0] * 4


@pytest.mark.parametrize("key", FACTORS)
def test_factors_store_what_was_counted(key, small):
    by = methods()[key]
    for each in frontier.compress_layers(small, by, by.levels[0]).values():
        assert each.weight.dtype == np.float32 and each.kept is None
        assert each.bits == by.count(each.weight.shape, by.levels[0], 16)
        assert each.multiply_adds == held(each) or (key == "cospadi" and each.multiply_adds < held(each))  # idle atoms


def test_bytes_are_those_worked_out_by_hand(small):
    half = frontier.judged_point(small, methods()["magnitude"], "0.5")
    assert half.cost["stored"] == WEIGHTS / 2 * 2 + WEIGHTS / 8  # half of the values, and a bitmap
    assert half.parts == {"values": WEIGHTS, "indices": WEIGHTS / 8}
    assert half.cost["multiply_adds"] == WEIGHTS / 2
    two_of_four = frontier.judged_point(small, methods()["nm_magnitude"], "2:4")
    assert two_of_four.cost["stored"] == half.cost["stored"]  # two bits for each of two of four: one for each place
    dense = frontier.dense_point(small)
    assert (dense.cost["stored"], dense.cost["read"], dense.cost["multiply_adds"]) == (
        2 * WEIGHTS,
        4 * WEIGHTS,
        WEIGHTS,
    )
    assert dense.parts == {"values": 2 * WEIGHTS}
    assert dense.quality == {"cosine": pytest.approx(1), "output_error": 0}


def test_methods_that_know_the_inputs_change_the_outputs_less(small):
    error = {
        key: frontier.judged_point(small, methods()[key], "0.5").quality["output_error"]
        for key in ("magnitude", "wanda", "sparsegpt")
    }
    assert error["sparsegpt"] < error["wanda"] < error["magnitude"]


def test_losses_of_layers_are_taken_on_text_that_nothing_was_fitted_to(small):
    point = frontier.judged_point(small, methods()["magnitude"], "0.5", added=True)
    model, x = small.load(), torch.cat(small.evaluation()).flatten(0, 1)
    first = point.layers[0]
    assert (first.name, point.key, point.added) == ("layers.0.0", "magnitude@0.5", True)
    kept = frontier.compress_layers(small, methods()["magnitude"], "0.5")["layers.0.0"]
    weight = model.layers[0][0].weight.numpy()
    change = np.linalg.norm(x.numpy() @ (weight - kept.weight).T) / np.linalg.norm(x.numpy() @ weight.T)
    assert first.output_error == pytest.approx(change, rel=1e-5)
    assert first.weight_error == pytest.approx(np.linalg.norm(weight - kept.weight) / np.linalg.norm(weight), rel=1e-6)
    assert first.density == 0.5


@pytest.mark.parametrize("key", ["magnitude", "nm_sparsegpt", "blocks_4x1"])
def test_a_trained_point_costs_what_it_did_and_is_better(key, small):
    by = methods()[key]
    level = by.levels[0]
    before = frontier.judged_point(small, by, level)
    told = []
    after = frontier.recovered_point(small, by, level, lambda *say: told.append(say), steps=40, rate=3e-3)
    assert (after.key, after.method, after.level, after.stage) == (before.key, before.method, level, "recovered")
    assert after.cost == before.cost and after.parts == before.parts
    assert [each.density for each in after.layers] == [each.density for each in before.layers]
    assert after.quality["cosine"] > before.quality["cosine"] + 0.3 * (1 - before.quality["cosine"])
    assert [f for f, _ in told] == sorted(f for f, _ in told) and ("training step 40 of 40" in [s for _, s in told])


def test_losses_of_a_trained_point_are_those_of_its_weights_now(small, monkeypatch):
    made = []
    right = frontier.recover
    monkeypatch.setattr(frontier, "recover", lambda *given, **how: made.append(right(*given, **how)) or made[-1])
    point = frontier.recovered_point(small, methods()["magnitude"], "0.5", steps=5, rate=3e-3, seed=2)
    weight, now = (each.layers[0][0].weight.numpy() for each in (small.load(), made[0]))
    change = np.linalg.norm(weight - now) / np.linalg.norm(weight)
    assert point.layers[0].weight_error == pytest.approx(change, rel=1e-6)
    assert point.quality["cosine"] == small.judge(made[0])["cosine"]
    again = frontier.recovered_point(small, methods()["magnitude"], "0.5", steps=5, rate=3e-3, seed=3)
    assert again.quality != point.quality  # other training data


def test_movement_prunes_while_the_model_trains_and_never_before(small):
    by = methods()["movement"]
    point = frontier.recovered_point(small, by, "0.7", steps=20, rate=3e-3)
    magnitude = frontier.recovered_point(small, methods()["magnitude"], "0.7", steps=20, rate=3e-3)
    assert (point.key, point.stage) == ("movement@0.7", "recovered")
    assert point.cost["multiply_adds"] == pytest.approx(0.3 * WEIGHTS, abs=8)
    assert point.cost["stored"] == magnitude.cost["stored"] and point.quality != magnitude.quality
    assert [each.density for each in point.layers] == pytest.approx([0.3] * 4, abs=1e-3)
    for call in (
        lambda: frontier.judged_point(small, by, "0.7"),
        lambda: frontier.prune(copy.deepcopy(small.load()), "movement", "0.7"),
        lambda: frontier.kept_weights("small", "movement", "0.7", "layers.0.0"),
    ):
        with pytest.raises(ValueError, match="movement chooses what stays while the model trains"):
            call()
    with pytest.raises(ValueError, match="movement: level must be"):
        frontier.recovered_point(small, by, "2:4", steps=1, rate=1e-3)


def test_the_source_stays_as_it_is(small):
    before = copy.deepcopy(small.load().state_dict())
    frontier.judged_point(small, methods()["sparsegpt"], "0.7")
    for key in ("wanda", "movement"):
        frontier.recovered_point(small, methods()[key], "0.7", steps=2, rate=1e-3)
    after = small.load().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_kept_weights_of_a_layer_are_those_of_its_point(small):
    found = frontier.kept_weights("small", "nm_wanda", "1:4", "layers.1.2")
    np.testing.assert_array_equal(
        found, frontier.compress_layers(small, methods()["nm_wanda"], "1:4")["layers.1.2"].weight
    )


def test_a_model_of_ones_own_is_pruned_by_one_call(small):
    model = copy.deepcopy(small.load())
    statistics = gather_statistics(model, small.calibration())
    made = frontier.prune(model, "wanda", "0.5", statistics=statistics)
    for name, layer in linear_layers(model).items():
        np.testing.assert_array_equal(layer.weight.numpy(), made[name].weight)
        assert float((layer.weight == 0).float().mean()) == pytest.approx(0.5, abs=0.02)
    head = linear_layers(model, ["head"])
    gradients = gather_gradients(model, small.calibration(), small.loss, layers=head)
    frontier.prune(model, "snip", "0.9", layers=head, gradients=gradients)
    assert int((model.head.weight == 0).sum()) == 144
    with pytest.raises(ValueError, match="pass statistics=gather_statistics"):
        frontier.prune(model, "wanda", "0.5")
    with pytest.raises(ValueError, match="pass gradients=gather_gradients"):
        frontier.prune(model, "snip", "0.5")
    with pytest.raises(KeyError, match="did you mean 'wanda'"):
        frontier.prune(model, "wandaa", "0.5")


@pytest.mark.parametrize("key", ONE_SHOT)
@pytest.mark.parametrize("level", ["", "x", "1.5", "-0.1", "nan", "4:2", "0:4", "2:0", "1:2:3"])
def test_a_level_that_is_none_is_refused(key, level, small):
    with pytest.raises(ValueError, match=f"{key}: level must be"):
        frontier.prune(copy.deepcopy(small.load()), key, level, statistics=frontier.statistics_of(small),
                       gradients=frontier._gradients(small))  # fmt: skip


def test_what_no_kernel_multiplies_has_no_time_and_no_bytes_that_one_reads(small):
    point = frontier.judged_point(small, methods()["quant"], "4")
    assert set(point.cost) == {"stored", "multiply_adds"}
    with pytest.raises(ValueError, match="times: no kernel multiplies with what quant stores"):
        frontier.times(small, [(methods()["quant"], "4")], (1,), rounds=1)


def test_times_are_of_products_that_were_compared(small, monkeypatch):
    chosen = [(methods()["magnitude"], "0.7"), (methods()["blocks_4x1"], "0.7")]
    by_tokens = frontier.times(small, chosen, (1, 8), rounds=1)
    assert list(by_tokens) == [1, 8]
    found = by_tokens[8]
    assert list(found) == [(frontier.DENSE, ""), ("magnitude", "0.7"), ("blocks_4x1", "0.7")]
    assert all(timing.median_s > 0 for timing in found.values())
    multiplied = []
    frontier._one_pass([(multiplied.append, layer) for layer in "abc"])
    assert multiplied == ["a", "b", "c"]
    right = frontier.compress_layers

    def wrong(*given):
        made = right(*given)
        for each in made.values():
            each.weight[0, 0] += 1
        return {name: type(each)(**{**vars(each), "pack": right(*given)[name].pack}) for name, each in made.items()}

    monkeypatch.setattr(frontier, "compress_layers", wrong)
    with pytest.raises(ValueError, match=r"the kernel of magnitude at 0\.7 is off"):
        frontier.times(small, chosen, (8,), rounds=1)
