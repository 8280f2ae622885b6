"""The diffusion model of digits, its judge, and the distance of pictures; the shipped file is what its card says."""

import hashlib
import json

import numpy as np
import pytest
import torch
from scipy import linalg

from workbench.models.vision import digit_diffusion, train_digit_diffusion
from workbench.models.vision.digit_diffusion import (
    DiffusionConfig,
    DigitDiffusion,
    diffusion_loss,
    draw,
    frechet_distance,
    load,
    load_judge,
    pictures,
)
from workbench.models.vision.digit_vit import accuracy


@pytest.fixture(scope="module")
def record():
    return json.loads(train_digit_diffusion.RECORD.read_text("utf-8"))


def test_the_file_is_the_one_that_record_and_card_describe(record):
    assert train_digit_diffusion.CARD.read_text("utf-8") == train_digit_diffusion.card(record)
    content = digit_diffusion.FILE.read_bytes()
    assert record["sha256"] == hashlib.sha256(content).hexdigest() and len(content) < 600_000
    assert record["parameters"] == sum(p.numel() for p in load().parameters()) == 270_272
    assert not any(p.requires_grad for model in (load(), load_judge()) for p in model.parameters())


def test_it_draws_what_is_asked_for(record):
    labels = torch.arange(10).repeat_interleave(10)
    drawn = draw(load(), labels, seed=3)
    assert accuracy(load_judge(), (drawn, labels)) > 0.94 < record["drawn"]["agreement"]
    assert frechet_distance(drawn, pictures()[0]) < 2.5 and record["drawn"]["distance"] < 0.5
    assert accuracy(load_judge(), (drawn, (labels + 1) % 10)) < 0.05
    noise = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(noise, pictures()[0]) > 10


def test_the_judge_knows_both_styles(record):
    for style in digit_diffusion.STYLES:
        assert 0.99 < record["judge"]["all"][style] == pytest.approx(accuracy(load_judge(), pictures(style)))
    x, y = pictures("inverted", range(5))
    assert len(x) == 901 and torch.equal(x, -pictures(digits=range(5))[0]) and y.max() == 4
    assert x.min() == -1 and x.max() == 1 and len(pictures()[0]) == 1797


def test_one_seed_gives_one_picture_whatever_comes_beside_it():
    small = DigitDiffusion(DiffusionConfig(steps=5, embedding=4, width=8, layers=1)).eval()
    labels = torch.tensor([1, 2])
    assert torch.equal(draw(small, labels, seed=1), draw(small, labels, seed=1))
    assert not torch.equal(draw(small, labels, seed=1), draw(small, labels, seed=2))
    assert draw(small, labels[:0]).shape == (0, 64)


def test_the_loss_and_the_way_back_are_those_of_the_paper():
    """A model that knows the picture gives the very noise, and its way back ends in the picture."""
    betas = np.linspace(1e-3, 0.12, 100)
    kept = torch.tensor(np.cumprod(1 - betas)).float()
    picture = torch.linspace(-1, 1, 64)

    class Knows(DigitDiffusion):
        def forward(self, x, t, labels):
            self.seen.append(t)
            return (x - kept[t, None].sqrt() * picture) / (1 - kept[t, None]).sqrt()

    model = Knows()
    model.seen = []
    assert diffusion_loss(model, (picture.expand(300, 64), torch.zeros(300, dtype=torch.long))) < 1e-6
    assert int(model.seen[0].min()) < 5 and int(model.seen[0].max()) > 94
    model.seen = []
    torch.testing.assert_close(draw(model, torch.zeros(3, dtype=torch.long)), picture.expand(3, 64), atol=1e-3, rtol=0)
    assert [int(t[0]) for t in model.seen] == list(range(99, -1, -1))


def test_the_variance_of_a_step_is_its_beta():
    """Where the model sees no noise, each step divides by the root of alpha and adds noise of variance beta."""

    class Blind(DigitDiffusion):
        def forward(self, x, t, labels):
            return torch.zeros_like(x)

    betas = np.linspace(1e-3, 0.12, 100)
    variance = 1.0
    for t in range(99, -1, -1):
        variance = variance / (1 - betas[t]) + (betas[t] if t else 0)
    drawn = draw(Blind(), torch.zeros(400, dtype=torch.long))
    assert float(drawn.var()) == pytest.approx(variance, rel=0.05)


def test_the_distance_by_hand_and_by_matrix_roots():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6)), rng.standard_normal((400, 6)) + 1
    means, (s, t) = (a.mean(0), b.mean(0)), (np.cov(x, rowvar=False) for x in (a, b))
    want = ((means[0] - means[1]) ** 2).sum() + np.trace(s + t - 2 * np.real(linalg.sqrtm(s @ t)))
    assert frechet_distance(a, b, ridge=0) == pytest.approx(want, rel=1e-8)
    line = np.array([[0.0], [2.0]])  # variance 2
    assert frechet_distance(line, 3 * line + 1, ridge=0) == pytest.approx(3**2 + (2**0.5 - 18**0.5) ** 2)
    assert frechet_distance(line, 3 * line - 2, ridge=7) == pytest.approx((3 - 5) ** 2)  # roots of 9, 25
    assert frechet_distance(torch.ones(5, 3), torch.ones(4, 3)) == pytest.approx(0, abs=1e-9)


def test_training_lowers_the_loss_and_is_repeatable():
    losses = []
    for steps in (0, 20):
        with torch.random.fork_rng(devices=[]):
            model = train_digit_diffusion.pretrain(steps=steps)
            torch.manual_seed(0)
            losses.append(float(diffusion_loss(model, pictures())))
    assert losses[1] < 0.8 * losses[0] and not any(p.requires_grad for p in model.parameters())
    again = train_digit_diffusion.pretrain(steps=20)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    judge = train_digit_diffusion.train_judge(steps=60)
    assert all(accuracy(judge, pictures(style)) > 0.7 for style in digit_diffusion.STYLES)


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="train_digit_diffusion"):
        load(tmp_path / "none.safetensors")
    for labels in (torch.tensor([10]), torch.tensor([-1]), torch.tensor([1.0]), torch.tensor([[1]])):
        with pytest.raises(ValueError, match="draw: labels"):
            draw(load(), labels)
    with pytest.raises(ValueError, match="style"):
        pictures("neon")
    for a, b in ((np.ones((1, 3)), np.ones((4, 3))), (np.ones((4, 2)), np.ones((4, 3))), (np.ones(4), np.ones(4))):
        with pytest.raises(ValueError, match=r"must be \(n, d\)"):
            frechet_distance(a, b)
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(np.full((4, 2), np.nan), np.ones((4, 2)))
