"""The model of small pictures: data, causality, training that lowers the cost, drawing that keeps what is given."""

import numpy as np
import torch

from workbench.models.attention.combiner import CombinerSelfAttention
from workbench.models.vision.pixel_model import LEVELS, PixelModel, bits_per_pixel, digits, draw, train


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


def test_an_untrained_model_guesses_and_a_trained_one_does_not():
    untrained, trained = train(attention, steps=0), train(attention, steps=60)
    assert bits_per_pixel(untrained) > 4
    assert bits_per_pixel(trained) < 3.2


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
