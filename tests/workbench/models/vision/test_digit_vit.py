"""The digits' vision transformer: what ships is what the script trains, and the tasks are what they say."""

import hashlib
import json

import pytest
import torch

from workbench.models.vision import digit_vit, train_digit_vit
from workbench.models.vision.digit_vit import FILE, DigitViT, accuracy, load, pictures, task


def test_the_shipped_model_recognises_what_its_record_says():
    record = json.loads(train_digit_vit.RECORD.read_text("utf-8"))
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == record["sha256"]
    assert accuracy(load(), pictures()[1]) == pytest.approx(record["accuracy"]["test"], abs=0.003) and (
        record["accuracy"]["test"] >= 0.96
    )
    assert train_digit_vit.CARD.read_text("utf-8") == train_digit_vit.card(record)
    assert not any(p.requires_grad for p in load().parameters())
    assert sum(p.numel() for p in load().parameters()) == record["parameters"]


def test_the_script_trains_a_model_of_that_form():
    made = train_digit_vit.pretrain(seed=3, passes=5)
    assert not any(p.requires_grad for p in made.parameters())
    assert accuracy(made, pictures()[1]) > 0.3  # ten classes


def test_patches_are_where_they_were():
    model, (x, _) = DigitViT(), pictures()[0]
    moved = x[:1].clone()
    moved[0, 4, 6] += 1.0  # in the patch of row 2, column 3
    with torch.no_grad():
        model.patches.bias.zero_()
        cut = [each.view(1, 4, 2, 4, 2).transpose(2, 3).reshape(16, 4) for each in (x[:1], moved)]
    assert (cut[0] != cut[1]).any(1).nonzero().ravel().tolist() == [2 * 4 + 3]


def test_tasks_turn_pictures_and_keep_labels():
    (x, y), (x_test, y_test) = pictures()
    assert x.shape == (1000, 8, 8) and x_test.shape == (797, 8, 8) and x.min() >= 0 and x.max() == 1
    (turned, labels), _ = task("rotinv")
    assert torch.equal(turned, 1 - torch.rot90(x, 1, (1, 2))) and torch.equal(labels, y)
    assert torch.equal(task("mirror")[1][0], x_test.flip(2)) and torch.equal(task("mirror")[1][1], y_test)
    few, of = task("transpose", 200)[0]
    assert torch.bincount(of).tolist() == [20] * 10 and few.shape == (200, 8, 8)


@pytest.mark.parametrize(("arguments", "message"), [
    (("upside",), "name must be one of digits, rotinv"), (("digits", 0), "count"), (("digits", 1001), "count"),
])  # fmt: skip
def test_what_is_not_there_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        task(*arguments)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train_digit_vit"):
        digit_vit.load(tmp_path / "none.safetensors")
