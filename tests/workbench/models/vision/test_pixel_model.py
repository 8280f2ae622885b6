"""The model of small pictures: data, causality, training that lowers the cost, drawing that keeps what is given."""

import numpy as np
import pytest
import torch

from workbench.models.attention.combiner_layer import CombinerSelfAttention
from workbench.models.vision.pixel_model import LEVELS, PixelModel, bits_per_pixel, digits, draw, train

pytestmark = pytest.mark.usefixtures("one_thread")


def attention():
    return CombinerSelfAttention(64, 4, pattern="fixed", seg_len=8)


def test_digits_are_split_without_overlap():
    trained, tested = digits()
    assert trained.shape == (1437, 64) and tested.shape == (360, 64)
    assert int(trained.min()) == 0 and int(trained.max()) == LEVELS - 1
    from sklearn.datasets import load_digits

    both = torch.cat([trained, tested]).numpy()
    wanted = load_digits().data.astype(int)
    assert sorted(map(tuple, both)) == sorted(map(tuple, wanted))


def test_a_pixel_is_predicted_from_those_before_it():
    torch.manual_seed(0)
    model, pictures = PixelModel(attention()), digits()[0][:3].clone()
    before = model(pictures)
    pictures[:, 20:] = (pictures[:, 20:] + 5) % LEVELS
    after = model(pictures)
    torch.testing.assert_close(before[:, :21], after[:, :21])
    assert not torch.allclose(before[:, 21], after[:, 21])


class Notes(torch.nn.Module):
    """A stand-in for attention: one everywhere; keeps what it is given."""

    def forward(self, x):
        """Map (b, L, dim) to (b, L, dim)."""
        self.given = x
        return torch.ones_like(x)


def test_parts_are_added_to_the_embedding_of_the_pixel_before():
    """With parts that give one and two everywhere: the norm of embedding + position + 3; the first pixel has a sign."""
    torch.manual_seed(0)
    model, pictures = PixelModel(Notes(), dim=5, length=4), torch.tensor([[3, 0, 16, 7]])
    for part in (model.norm_out, model.norm_attention, model.predict):
        torch.nn.init.normal_(part.bias)
    torch.nn.init.zeros_(model.feed[2].weight)
    torch.nn.init.constant_(model.feed[2].bias, 2.0)
    logits = model(pictures)
    for at, before in enumerate((LEVELS, 3, 0, 16)):
        found = model.pixels.weight[before] + model.positions[at]
        normed = (found - found.mean()) / (found.var(unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(model.attention.given[0, at], normed + model.norm_attention.bias)
        torch.testing.assert_close(
            logits[0, at], model.predict.weight @ (normed + model.norm_out.bias) + model.predict.bias
        )


def test_an_untrained_model_guesses_and_a_trained_one_does_not():
    untrained, trained = train(attention, steps=0), train(attention, steps=60)
    assert bits_per_pixel(untrained) > 4
    assert bits_per_pixel(trained) < 3.2


def test_cost_is_minus_the_log_of_the_chance_of_each_pixel():
    model = PixelModel(attention())
    for parameter in model.predict.parameters():
        torch.nn.init.zeros_(parameter)
    assert bits_per_pixel(model) == pytest.approx(np.log2(LEVELS))
    with torch.no_grad():
        model.predict.bias[0] = np.log(16)  # black has a chance of a half, the other sixteen levels share the rest
    pictures = digits()[1][:3]
    black = float((pictures == 0).float().mean())
    assert bits_per_pixel(model, tested=3) == pytest.approx(black + 5 * (1 - black), rel=1e-5)
    assert not np.isclose(bits_per_pixel(model), bits_per_pixel(model, tested=3))


def test_pixels_are_drawn_in_turn_each_from_its_own_prediction():
    def count_up(pictures):
        """Predict that every pixel is one above the pixel before it."""
        before = torch.nn.functional.pad(pictures[:, :-1], (1, 0))
        return torch.nn.functional.one_hot((before + 1) % LEVELS, LEVELS) * 1e4

    drawn = draw(count_up, torch.full((2, 64), 3), given=2)
    assert drawn[0, :6].tolist() == [3, 3, 4, 5, 6, 7] and torch.equal(drawn[0], drawn[1])


def test_equal_seeds_train_equal_models_and_leave_the_callers_random_state_alone():
    torch.manual_seed(5)
    first = train(attention, steps=3, seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    again, other = train(attention, steps=3, seed=1), train(attention, steps=3, seed=2)
    pictures = digits()[1][:2]
    assert torch.equal(first(pictures), again(pictures))
    assert not torch.equal(first(pictures), other(pictures))


def test_drawing_keeps_what_is_given():
    model, pictures = train(attention, steps=1), digits()[1][:2]
    drawn = draw(model, pictures, given=60)
    assert torch.equal(drawn[:, :60], pictures[:, :60])
    assert np.isin(drawn.numpy(), np.arange(LEVELS)).all()
    assert torch.equal(drawn, draw(model, pictures, given=60))
