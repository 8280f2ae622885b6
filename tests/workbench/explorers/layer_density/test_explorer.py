"""The explorer of layer densities: its states, own models, stories, links, training here, and what it refuses."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from widgets.figures.layer_density import AccuracyPoint
from widgets.views.layer_density import SECTIONS
from workbench.explorers.layer_density import explorer as module
from workbench.explorers.layer_density import recorded
from workbench.explorers.layer_density.explorer import MODES, MOST_WEIGHTS, explorer
from workbench.explorers.layer_density.method import methods
from workbench.explorers.layer_density.source import sources
from workbench.explorers.layer_density.stories import STORIES
from workbench.models.compression.pai_scores import pai_masks

X = torch.randn(6, 2, 6, 6)


def own():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(24, 3))


@pytest.fixture(scope="module")
def view():
    shown = explorer(rounds=4)
    yield shown
    shown.close()


def test_every_section_is_drawn_for_every_net_and_pruner(view):
    for net in sources():
        for method in methods():
            with view.changes():
                view.net, view.method, view.section = net, method, "layers"
            for section, _ in SECTIONS:
                view.section = section
                columns, rows = view.table(view.scene)
                assert view.error == "" and view.alt_text(view.scene) and columns
                assert len(rows) or section == "accuracy"
    view.load_query("")


def test_what_is_drawn_is_what_the_pruner_keeps():
    shown = explorer(net="plain", method="snip", density=0.2, seed=4)
    of = sources()["plain"]
    masks = pai_masks(of.build(4), "snip", 0.2, loader=of.batches())
    for name, mask, kept in zip(shown.scene.names, shown.scene.masks, shown.scene.kept, strict=True):
        assert kept == int(masks[name].sum()) and np.array_equal(mask.reshape(masks[name].shape), masks[name].numpy())
    linear = shown.scene.masks[-1]
    assert linear.shape == (10, 64, 4)  # 2 x 2 pixels of each of 64 channels
    widths = {name: after for name, _, after, _ in shown.scene.groups}
    assert shown.scene.cropped[-1].tolist() == [list(widths.values())[-1], 10]
    assert int(shown.scene.cropped_sizes.sum()) == shown.scene.used <= shown.scene.budget
    shown.close()


@pytest.mark.parametrize("mode", [key for key, _ in MODES])
@pytest.mark.parametrize("kind", ("params", "flops"))
def test_every_way_of_cropping_keeps_the_budget(mode, kind):
    shown = explorer(net="inverted", method="magnitude", density=0.5, mode=mode, budget_kind=kind)
    assert shown.error == "" and shown.scene.is_cropped
    assert 0.8 * shown.scene.budget <= shown.scene.used <= shown.scene.budget
    shown.close()


def test_what_cannot_be_cropped_is_told_and_the_bars_stay():
    shown = explorer(method="magnitude", density=0.01, mode="inner")
    assert "Nothing is cropped" in shown._headline.value and "infeasible" in shown._headline.value
    for section, _ in SECTIONS:
        shown.section = section
        assert shown.error == ""
    shown.close()


def test_the_link_and_the_recipe_bring_the_state_back(view):
    with view.changes():
        view.density, view.mode, view.section, view.shuffle, view.layer = 0.05, "synexp", "mask", 3, "blocks.3.conv1"
    again = explorer(query=view.query)
    assert again.state == view.state and again.alt_text(again.scene) == view.alt_text(view.scene)
    again.close()
    made = {}
    exec(view.recipe(), made)
    assert made["view"].state == view.state
    made["view"].close()
    view.load_query("rounds=4")


def test_rounds_move_the_counts_and_only_where_there_are_rounds(view):
    view.load_query("density=0.01&rounds=1&section=rounds")
    assert (view.scene.kept == 0).sum() >= 3 and np.array_equal(view.scene.kept, view.scene.once)
    view.rounds = 30
    assert (view.scene.kept == 0).sum() < (view.scene.once == 0).sum()
    assert "rounds" in {control["key"] for control in view._panel.controls}
    view.method = "random"
    assert "rounds" not in {control["key"] for control in view._panel.controls} and view.scene.rounds == 1
    view.load_query("rounds=4")


@pytest.mark.parametrize("key", list(STORIES))
def test_stories_are_states_of_the_view(key):
    shown = explorer(**(STORIES[key].state | {"rounds": min(STORIES[key].state.get("rounds", 5), 5)}))
    assert shown.error == "" and (not shown.layer or shown.layer in shown.scene.names)
    shown.close()


def test_ones_own_model_is_pruned_as_it_is():
    model = own()
    before = model[0].weight.detach().clone()
    shown = explorer(model, X, method="magnitude", density=0.5)
    assert shown.error == "" and shown.state["net"] == "own" and shown.scene.names == ("0", "2", "4")
    assert torch.equal(model[0].weight, before) and "Your own model" in shown._headline.value
    assert shown._train.layout.display == "none"  # there are no data
    assert "explorer(model, example, method='magnitude'" in shown.recipe()
    shown.method = "snip"
    assert "needs labelled examples" in shown.error
    shown.close()
    labelled = explorer(own(), X, [(X, torch.arange(6) % 3)], method="grasp", density=0.5)
    assert labelled.error == ""
    labelled.close()


def test_two_models_of_ones_own_are_told_apart():
    first, second = own(), own()
    with torch.no_grad():
        second[0].weight[:4] = 0
    one, two = (explorer(model, X, method="magnitude", density=0.3) for model in (first, second))
    assert not np.array_equal(one.scene.kept, two.scene.kept)
    one.close()
    two.close()


def test_models_that_cannot_be_shown_are_refused():
    with pytest.raises(ValueError, match=f"the limit of this view is {MOST_WEIGHTS:,}"):
        explorer(nn.Sequential(nn.Linear(2001, 2000)), torch.zeros(1, 2001))
    with pytest.raises(TypeError, match="cannot follow channels"):
        explorer(nn.Sequential(nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4)), X)
    with pytest.raises(TypeError, match="example"):
        explorer(own())


def test_training_here_adds_two_points_and_another_net_takes_them_back(monkeypatch):
    monkeypatch.setattr(module, "EPOCHS", 1)
    labels = torch.arange(6) % 3
    data = ((X, labels), (X, labels))
    model = own()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    shown = explorer(model, X, data=data, method="magnitude", density=0.5, section="accuracy")
    assert not shown.scene.points and "No net" in shown.alt_text(shown.scene)
    shown.trained = True
    assert shown.error == "" and [point.here for point in shown.scene.points] == [True, True]
    assert [point.parameters for point in shown.scene.points] == [
        shown.scene.kept.sum(),
        shown.scene.cropped_sizes.sum(),
    ]
    assert all(0 <= point.accuracy <= 1 for point in shown.scene.points) and shown.kind == "measured"
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())  # a copy was trained
    shown.density = 0.4
    assert not shown.trained and not shown.scene.points
    shown.section = "mask"
    shown.close()


def rows_of(net="residual"):
    at = {"net": net, "density": 0.1}
    rows = [
        at | {"quantity": "test accuracy", "training": "SynFlow", "seed": s, "value": v}
        for s, v in ((1, 0.9), (2, 1.0))
    ]
    rows += [at | {"quantity": "parameters kept", "training": "SynFlow", "seed": s, "value": 100} for s in (1, 2)]
    for form, ms in (("dense", 8.0), ("masked", 9.0), ("cropped", 3.0), ("masked, by sparse products", 20.0)):
        rows += [at | {"quantity": "time of an inference", "form": form, "batch": b, "value": ms * b} for b in (1, 10)]
        rows.append(at | {"quantity": "time of an epoch", "form": form, "batch": 64, "value": 100 * ms})
    return rows


def test_points_are_means_of_seeds_with_the_times_of_their_form():
    points = recorded.recorded_points(rows_of() + rows_of("plain"), "residual")
    assert [(p.name, p.accuracy, p.low, p.high, p.seeds, p.parameters, p.time_ms) for p in points] == [
        ("SynFlow", 0.95, 0.9, 1.0, 2, 100, 90.0),
        ("SynFlow, by sparse products", 0.95, 0.9, 1.0, 2, 100, 200.0),
    ]
    assert recorded.recorded_points(rows_of(), "inverted") == ()
    assert recorded.epoch_seconds(rows_of(), "residual", 0.03) == pytest.approx(1.2)
    assert recorded.epoch_seconds(rows_of(), "plain", 0.03) is None


def test_masks_are_told_what_recorded_nets_of_the_nearest_density_reached():
    times = {"SynFlow": 9.0, "SynFlow, shuffled": 9.5, "PreCrop, tied": 4.0}
    points = [
        AccuracyPoint(name=name, density=d, accuracy=d, low=d, high=d, parameters=1, time_ms=ms)
        for d in (0.1, 0.5)
        for name, ms in times.items()
    ]
    points.append(replace(points[0], density=0.2))  # without the other kinds
    found = recorded.outcomes(points, 0.22)
    assert {kind: (point.density, point.time_ms) for kind, point in found.items()} == {
        "scored": (0.1, 9.0), "shuffled": (0.1, 9.5), "cropped": (0.1, 4.0)
    }  # fmt: skip
    assert recorded.outcomes(points[:2], 0.1) == {}
    assert recorded.outcomes([replace(point, here=True) for point in points], 0.1) == {}


def test_the_time_of_training_here_comes_from_the_record(monkeypatch):
    monkeypatch.setattr(module, "recorded_rows", rows_of)
    shown = explorer(rounds=2, section="accuracy")
    seconds = 15 * 1.2 * 1437 / 512
    assert f"about {round(seconds)} s" in shown._train.options[0][1] and shown._train.layout.display is None
    shown.net = "plain"
    assert shown._train.layout.display == "none"  # no epoch of it was recorded
    shown.close()


def test_views_are_freed():
    views = []
    for _ in range(3):
        shown = explorer(net="plain", method="random")
        shown.section = "mask"
        views.append(weakref.ref(shown))
        shown.close()
        del shown
    gc.collect()
    assert not [view for view in views if view() is not None]
