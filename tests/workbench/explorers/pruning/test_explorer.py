"""The pruning explorer over a small model: records, points added, kept weights, and the real models' own numbers."""

from dataclasses import replace

import pytest
import torch

from widgets.figures.pruning import LayerLoss, TradeoffPoint
from workbench.data import text
from workbench.explorers.pruning import explorer, frontier, sentence_encoder
from workbench.explorers.pruning.method import methods
from workbench.explorers.pruning.recorded import points, rows_of_point, rows_of_times
from workbench.explorers.pruning.source import sources, training_text
from workbench.explorers.pruning.stories import STORIES
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.record import rounded, validate_rows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rows(small):
    found = rows_of_point(frontier.dense_point(small), small)
    for key, level in (("magnitude", "0.5"), ("wanda", "0.7")):
        found += rows_of_point(frontier.judged_point(small, methods()[key], level), small)
    titles = {key: each.title for key, each in methods().items()}
    timed = frontier.times(small, [(methods()["wanda"], "0.7")], (1,), rounds=1)[1]
    return found + rows_of_times(timed, small, next(axis for axis in frontier.COSTS if axis.key == "time_1"), titles)


@pytest.fixture
def view(small, rows, monkeypatch):
    monkeypatch.setattr(explorer, "recorded_rows", lambda: rows)
    shown = explorer.explorer()
    yield shown
    shown.close()


def test_points_survive_their_record(small, rows):
    validate_rows("tradeoffs", rows)
    found = {point.key: point for point in points(rows, small)}
    assert list(found) == ["dense", "magnitude@0.5", "wanda@0.7"]
    made = frontier.judged_point(small, methods()["wanda"], "0.7")
    back = found["wanda@0.7"]
    assert back.quality == made.quality and back.parts == made.parts
    assert {key: x for key, x in back.cost.items() if key != "time_1"} == made.cost
    assert back.cost["time_1"] > 0 and found["dense"].cost["time_1"] > 0 and "time_1" not in found["magnitude@0.5"].cost
    assert [(each.name, each.output_error) for each in back.layers] == [
        (each.name, each.output_error) for each in made.layers
    ]
    assert [each.density for each in back.layers] == pytest.approx([each.density for each in made.layers], abs=5e-5)
    assert len({each.density for each in back.layers}) == 2  # 10 of 32 in each row are not 19 of 64
    assert [each.density for each in found["magnitude@0.5"].layers] == [0.5] * 4
    assert points([{**each, "model": "another"} for each in rows], small) == []


def test_whole_numbers_keep_all_their_digits_in_records(small):
    point = TradeoffPoint(
        key="svd@0.5",
        method="SVD",
        level="0.5",
        quality={"cosine": 0.5, "output_error": 0.25},
        cost={"stored": 12345678.0},
        parts={"dense factors": 12345677.0},
        layers=(LayerLoss(name="a.0", density=1.0, output_error=0.25),),
    )
    (back,) = points(rounded(rows_of_point(point, small)), small)
    assert (back.cost["stored"], back.parts["dense factors"]) == (12345678, 12345677)
    assert [(each.name, each.density, each.output_error) for each in back.layers] == [("a.0", 1.0, 0.25)]


def test_trained_points_stand_beside_those_before_and_share_their_times(small, rows):
    trained = frontier.recovered_point(small, methods()["wanda"], "0.7", steps=2, rate=1e-3)
    before, after = [point for point in points(rows + rows_of_point(trained, small), small) if "wanda" in point.key]
    assert (before.stage, after.stage) == ("one-shot", "recovered")
    assert after.quality == trained.quality != before.quality
    assert after.cost == before.cost and "time_1" in after.cost


def test_a_method_that_prunes_while_training_is_offered_for_no_point_of_ones_own(view):
    assert "movement" not in dict(view.knob("method").choices)
    view.added = "movement@0.7"
    view.wait()
    assert "movement chooses what stays while the model trains" in view.error


def test_it_opens_on_the_records_and_adds_points(view, small):
    assert [point.key for point in view.scene.points] == ["magnitude@0.5", "wanda@0.7"]
    with view.changes():
        view.method, view.level = "nm_sparsegpt", "2:4"
    view._button_pressed("add")
    view.wait()
    added = view.scene.points[-1]
    assert (added.key, added.added, len(added.layers)) == ("nm_sparsegpt@2:4", True, 4)
    assert added.quality == frontier.judged_point(small, methods()["nm_sparsegpt"], "2:4").quality


def test_a_recorded_point_that_is_computed_again_keeps_its_time(view):
    view.added = "wanda@0.7"
    view.wait()
    found = [point for point in view.scene.points if point.key == "wanda@0.7"]
    assert len(found) == 1 and found[0].added and "time_1" in found[0].cost


def test_a_point_is_computed_at_the_budget_of_bytes(view):
    with view.changes():
        view.method, view.within = "magnitude", 0.4
    view._button_pressed("solve")
    view.wait()
    found, dense = view.chosen(view.scene), view.scene.dense
    assert found.added and view.error == "" and f"at {found.level} takes" in view._buttons.text
    grain = 2 / dense.cost["stored"]  # one weight of each of two equal layers, with its bits
    assert 0.4 - 4 * grain < found.cost["stored"] / dense.cost["stored"] <= 0.4
    with view.changes():
        view.method, view.within = "nm_wanda", 0.05
    view._button_pressed("solve")
    assert "less than nm_wanda can reach; its smallest is 0.078125" in view.error


def test_the_recipe_remakes_the_view(view):
    with view.changes():
        view.value_bits, view.indices, view.kept, view.point = "4", False, "magnitude@0.5", "wanda@0.7"
    made = {}
    exec(view.recipe(), made)
    assert made["view"].state == view.state and made["view"]._comparison.spec == view._comparison.spec
    made["view"].close()


def test_kept_weights_follow_the_point_and_the_layer(view, small):
    kept = explorer.kept_weights_view(view)
    kept.wait()
    assert kept.scene.source.nnz == 64 * 32  # no point is chosen: all weights of the first layer
    view.point = "wanda@0.7"
    kept.wait()
    assert kept.scene.source.nnz == (frontier.kept_weights("small", "wanda", "0.7", "layers.0.0") != 0).sum()
    view.layer = "layers.1.2"
    kept.wait()
    assert (kept.matrix, kept.scene.source.shape) == ("layers.1.2", (32, 64))
    kept.matrix = "layers.0.2"
    assert view.layer == "layers.0.2"
    kept.close()
    view.layer = "layers.0.0"  # a closed view follows no more


def test_weights_that_only_a_training_chooses_are_told_not_to_be_known(view):
    kept = explorer.kept_weights_view(view)
    kept.wait()
    view.point = "movement@0.7"
    kept.wait()
    assert "Choose a point of another method to see its weights." in kept.error
    view.point = "wanda@0.7"
    kept.wait()
    assert not kept.error
    kept.close()


def test_the_page_says_which_points_have_no_time(view):
    assert "so they have no time" not in view.scene.note
    view.added = "quant@4"
    view.wait()
    assert "so they have no time" in view.scene.note and "read" not in view.scene.points[-1].cost


def test_an_unknown_method_in_a_link_is_told_in_a_sentence(view):
    view.added = "nothing@0.5"
    view.wait()
    assert "no pruning method 'nothing'" in view.error


def test_without_the_first_models_weights_it_opens_on_another(monkeypatch):
    found = dict(sources())
    found["minilm"] = replace(found["minilm"], missing=lambda: "not installed")
    monkeypatch.setattr(explorer, "sources", lambda: found)
    monkeypatch.setattr(explorer, "source", found.get)
    asked = {}
    monkeypatch.setattr(explorer, "view_class", lambda: lambda scenes, hooks, query, **state: asked.update(
        state, query=query))  # fmt: skip
    explorer.explorer()
    assert asked["model"] == "small_encoder"
    explorer.explorer(query="?within=0.3")
    assert asked["query"] == "?within=0.3&model=small_encoder"


@pytest.mark.slow
def test_a_model_without_a_record_is_shown_dense_at_once_and_with_points_of_ones_own(monkeypatch):
    found = dict(sources())
    found["minilm"] = replace(found["minilm"], missing=lambda: "not installed")
    monkeypatch.setattr(explorer, "source", found.get)
    monkeypatch.setattr(explorer, "recorded_rows", list)
    shown = explorer.explorer()
    shown.wait()
    assert (shown.model, shown.error, shown.scene.points) == ("small_encoder", "", ())
    assert shown.scene.dense.quality == {"cosine": 1.0, "neighbours": 1.0, "output_error": 0.0}
    assert shown.scene.dense.cost["multiply_adds"] == 4 * (4 * 128 * 128 + 2 * 128 * 512)
    shown.added = "magnitude@0.5"
    shown.wait()
    (point,) = shown.scene.points
    assert len(point.layers) == 24 and 0.5 < point.quality["cosine"] < 0.9999
    shown.close()


def _unit(*degrees):
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_an_encoder_is_judged_by_its_vectors_and_their_neighbours(monkeypatch):
    model = sources()["small_encoder"].load()
    monkeypatch.setattr(sentence_encoder, "_vectors", lambda load, of: _unit(60, 30, 80))
    monkeypatch.setattr(sentence_encoder, "_dense", lambda load: _unit(0, 30, 100))
    monkeypatch.setattr(sentence_encoder, "NEAREST", 1)
    monkeypatch.setattr(sentence_encoder, "EVALUATION", slice(0, 2))
    judge = sources()["small_encoder"].judge
    assert judge(model) == {"cosine": 1.0, "neighbours": 1.0}
    # The first two turned by 60 and 0 degrees. The nearest of the first and of the third was the second, and is now the
    # other one of them; that of the second stays.
    assert judge("other") == {"cosine": pytest.approx(0.75), "neighbours": pytest.approx(1 / 3)}


def test_stories_name_what_there_is():
    knobs = {knob.key: knob for knob in explorer.view_class().knobs}
    for story in STORIES:
        for key, value in story.state.items():
            knobs[key].validate(value)
        for point in filter(None, (story.state.get("point"), *story.state.get("kept", "").split(","))):
            by, _, level = point.partition("@")
            assert level in methods()[by].levels


@pytest.mark.slow
def test_the_shipped_language_model_is_judged_as_it_is(assert_close):
    of = sources()["tiny_lm"]
    found = of.judge(of.load())
    assert found["agreement"] == 1
    assert 1.0 < found["bits_per_byte"] < 1.8
    batch = of.calibration()[0]
    assert batch.shape == (4, 512)
    taught = of.training(3, 1)
    assert [each.shape for each in taught] == [(4, 128)] * 3 and 0 <= float(
        of.distil(of.load(), of.load(), batch)
    ) < 1e-6
    assert torch.equal(taught[2], of.training(3, 1)[2]) and not torch.equal(taught[0], of.training(3, 2)[0])
    held_out = {tuple(row) for each in of.evaluation() for row in each.tolist()}
    assert not held_out & {tuple(row) for each in of.calibration() for row in each.tolist()}
    assert float(of.loss(of.load(), batch[:1])) > 0


def test_every_source_has_its_layers_and_its_axes():
    for of in sources().values():
        if not of.missing():
            assert len(linear_layers(of.load())) in (24, 36, 42)
        assert len({axis.key for axis in of.qualities}) == len(of.qualities)


def test_every_method_says_where_it_is_published():
    for key, by in methods().items():
        assert "arXiv" in by.source and by.levels and by.title, key
    assert len({by.title for by in methods().values()}) == len(methods())
    assert [key for key, by in methods().items() if not by.one_shot] == ["movement"]


def test_training_text_is_held_out_from_judging():
    taught = training_text(200_000, 1)
    assert 200_000 <= len(taught) < 203_000
    assert taught == training_text(200_000, 1) != training_text(200_000, 2)
    judged = {piece for document in text.documents(("documentation", "library"), "held_out")
              for piece in document.text.split("\n\n") if len(piece) > 80}  # fmt: skip
    assert not judged & set(taught.split("\n\n"))
