"""SEA module by module, with random weights, against plain loops in NumPy and losses worked out by hand."""

from math import ceil, erf, exp, floor, log, sqrt

import numpy as np
import pytest
import torch

from workbench.models.attention.sea import SEAAttention, oracle_estimate, sea_loss, teacher

LENGTHS = (5, 3)  # real tokens of two samples
AS_RELEASED = {False: {"mask_padded_keys": False}, True: {"scale_performer_queries": True}}  # causal or not
as_released = pytest.mark.parametrize("released", [False, True])


def random_layer(causal, *, released=False, **how):
    """Two heads of width four and eight cells; every weight and bias, also of the norms, is random."""
    how |= AS_RELEASED[causal] if released else {}
    sea = SEAAttention(8, 2, **({"width": 8, "k": 2, "causal": causal, "max_positions": 8} | how)).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in sea.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return sea


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(6)
    q, k, v = (torch.randn(2, 2, 5, 4, generator=generator) for _ in range(3))
    return q, k, v, torch.arange(5) < torch.tensor(LENGTHS)[:, None]


def numpy(x):
    return x.detach().double().numpy()


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def linear(layer, x):
    return numpy(layer.weight) @ x + numpy(layer.bias)


def norm(layer, x):
    return (x - x.mean()) / sqrt(x.var() + 1e-5) * numpy(layer.weight) + numpy(layer.bias)


def gelu(x):
    return x * np.array([(1 + erf(each / sqrt(2))) / 2 for each in x])


def convolution(layer, x, *, above, below=0, sides, down=1, apart=1):
    """One output after another: x (channels, T, W), padded with zeros, read every ``apart`` and moved by ``down``."""
    weight, bias = numpy(layer.weight), numpy(layer.bias)
    x = np.pad(x, [(0, 0), (above, below), (sides, sides)])
    outputs, _, high, wide = weight.shape
    rows, columns = (x.shape[1] - (high - 1) * apart - 1) // down + 1, x.shape[2] - (wide - 1) * apart
    out = np.empty((outputs, rows, columns))
    for o, i, j in np.ndindex(out.shape):
        out[o, i, j] = bias[o] + sum(
            weight[o, :, a, b] @ x[:, i * down + a * apart, j + b * apart] for a in range(high) for b in range(wide)
        )
    return out


def stretched(x, size):
    """Resize (T, W) by lines between cells' middles, one axis after another; beyond the outer middles nothing moves."""
    for axis, new in enumerate(size):
        lines, old = np.moveaxis(x, axis, 0), x.shape[axis]
        places = [max(0.0, (n + 0.5) * old / new - 0.5) for n in range(new)]
        moved = [
            lines[floor(y)] * (1 - y + floor(y)) + lines[min(floor(y) + 1, old - 1)] * (y - floor(y)) for y in places
        ]
        x = np.moveaxis(np.array(moved), 0, axis)
    return x


def narrowed(row, size):
    """Resize a row by area: every new cell is the mean of the old ones that it touches."""
    old = len(row)
    return np.array([row[floor(i * old / size) : ceil((i + 1) * old / size)].mean() for i in range(size)])


# Values with positions, and the linear pass -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "rows"),
    [
        (1, [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]),
        (2, [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]),
        (3, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]),
        (5, [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]),
    ],
)
def test_positions_are_the_identity_stretched_over_the_real_tokens(length, rows):
    sea = SEAAttention(3, 1, width=4)
    x = torch.zeros(1, 1, 5, 3)
    assert sea.performer(x, x, x, torch.arange(5)[None] < length)[0].tolist() == [[rows]]


@as_released
@pytest.mark.parametrize("causal", [False, True])
def test_linear_pass_is_a_loop_over_features(causal, released, given, assert_close):
    """In the released code padded keys, with values of zero, take part; where causal its queries come scaled."""
    q, k, v, keep = given
    sea = random_layer(causal, released=released)
    v = v * keep[:, None, :, None]
    position, found = sea.performer(q, k, v, keep)
    p = numpy(sea.projection)
    assert p.shape == (int(4 * log(4)), 4)
    wanted = np.zeros((2, 2, 5, 8))
    for n, h in np.ndindex(2, 2):
        seen = range(5 if causal or released else LENGTHS[n])  # where causal, padding lies in the future of what counts
        queries, keys = ([numpy(x)[n, h, i] / 4**0.25 for i in range(5)] for x in (q, k))
        if causal:
            queries = [x / 2 for x in queries] if released else queries
            fq, fk = ([np.maximum(p @ x, 0) + 1e-3 for x in some] for some in (queries, keys))
            place = numpy(sea.position)[0, 0, :5] * numpy(keep)[n][:, None]
        else:
            most = max((p @ keys[j]).max() for j in seen)
            fq = [np.exp(p @ x - x @ x / 2 - (p @ x).max()) + 1e-4 for x in queries]
            fk = [np.exp(p @ x - x @ x / 2 - most) + 1e-4 for x in keys]
            place = numpy(position)[n, h]
        values = [np.concatenate([place[j], numpy(v)[n, h, j]]) for j in range(5)]
        for i in range(5):
            weight = {j: fq[i] @ fk[j] for j in seen if j <= i or not causal}
            tiny = 1e-6 * fq[i].sum() if causal else 0.0  # what the divisor adds to every feature of the keys
            wanted[n, h, i] = sum(w * values[j] for j, w in weight.items()) / (sum(weight.values()) + tiny)
    assert_close(found, wanted)


# The estimate --------------------------------------------------------------------------------------------------------


def mixed_by_the_paper(sea, q, k, v, keep):
    """GELU(LayerNorm(Linear([C_perf | V]))) of every token, (N, H, T, 2d)."""
    v = v * keep[:, None, :, None]
    joined = np.concatenate([numpy(sea.performer(q, k, v, keep)[1]), numpy(v)], -1)
    lines, normal, _ = sea.mix
    return np.apply_along_axis(lambda z: gelu(norm(normal, linear(lines, z))), -1, joined)


def estimated_by_the_paper(sea, mixed, length):
    """Scores of one sample, (H, T, W), from what the tokens became; padded tokens enter the images as zeros."""
    h, t, _ = mixed.shape
    images = 2 if sea.causal else 4
    x = np.zeros((images * h, t, 4 if not sea.causal else 2))
    for head, i in np.ndindex(h, length):
        pieces = np.split(linear(sea.to_images, mixed[head, i]), images)
        for image, piece in enumerate(pieces):
            x[images * head + image, i] = norm(sea.image_norm, piece) if sea.causal else piece
    if sea.causal:
        x[:, length:] = numpy(sea.image_norm.bias)  # what the norm makes of zeros
        for layer in (sea.first, sea.second):
            x = np.maximum(convolution(layer.conv, x, above=4, sides=2, apart=2), 0)
        x = convolution(sea.last.conv, x.repeat(4, axis=2), above=0, sides=1)
        return np.array([[norm(sea.row_norm, narrowed(row, sea.width)) for row in head] for head in x])
    x = np.maximum(convolution(sea.down, x, above=1, below=1, sides=1, down=2), 0)
    x = np.maximum(convolution(sea.middle, x, above=1, below=1, sides=1), 0)
    x = convolution(sea.up, x.repeat(2, axis=1), above=1, below=1, sides=1)
    return np.array([stretched(head, (t, sea.width)) for head in x])


@as_released
@pytest.mark.parametrize("causal", [False, True])
def test_estimate_is_the_decoder_s_loop(causal, released, given, assert_close):
    """In the released bidirectional code padded tokens enter the images as what the linear pass makes of them."""
    q, k, v, keep = given
    sea = random_layer(causal, released=released)
    out = sea(q, k, v, keep)
    mixed = mixed_by_the_paper(sea, q, k, v, keep)
    for n, length in enumerate(LENGTHS):
        scores = estimated_by_the_paper(sea, mixed[n], 5 if released and not causal else length)
        assert_close(out.scores[n], scores)
        shares = np.apply_along_axis(softmax, -1, scores)
        shares[:, length:] = 0
        assert_close(out.est[n], shares)


# From cells to the output --------------------------------------------------------------------------------------------


def cell_of(key, visible, width):
    return min(width - 1, max(0, floor((key + 0.5) * width / visible - 1e-4)))


@as_released
@pytest.mark.parametrize("backend", ["dense", "flat_csr"])
@pytest.mark.parametrize("causal", [False, True])
def test_output_is_the_paper_s_loop_over_chosen_keys(causal, backend, released, given, assert_close):
    """In the released bidirectional code the mean over queries divides by all rows, of which padded ones are zero."""
    q, k, v, keep = given
    sea = random_layer(causal, backend=backend, released=released)
    with torch.no_grad():
        out = sea(q, k, v, keep)
    mixed, est, cells = mixed_by_the_paper(sea, q, k, v, keep), numpy(out.est), out.cells.numpy()
    q, k, v = map(numpy, (q, k, v))
    for n, h in np.ndindex(2, 2):
        for i in range(LENGTHS[n]):
            visible = i + 1 if causal else LENGTHS[n]
            chosen = [j for j in range(visible) if cells[n, h, i, cell_of(j, visible, 8)]]
            exact = softmax(k[n, h, chosen] @ q[n, h, i] / 2) @ v[n, h, chosen] if chosen else 0
            if causal:
                average = v[n, h, :visible].mean(0)
            else:
                average = 0
                for j in range(visible):
                    seen = sum(est[n, h, row, cell_of(j, visible, 8)] for row in range(visible))
                    average = average + seen / (5 if released else visible) * v[n, h, j]
            s_prob, s_mix = 1 / (1 + np.exp(-linear(sea.scale, mixed[n, h, i])))
            wanted = s_mix * s_prob * exact + (1 - s_mix) * average
            np.testing.assert_allclose(out.context[n, h, i], wanted, rtol=1e-4, atol=1e-5)


# Losses --------------------------------------------------------------------------------------------------------------


def test_losses_by_hand_leave_padding_out():
    """One head, three tokens; the third of the first sample is padding, as a query and as a key."""
    q = torch.zeros(2, 1, 3, 1)  # the student's own scores are flat
    target, scores = torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 2)  # all alike, so no loss, in the second sample
    target[0, 0] = torch.log(torch.tensor([[3.0, 1.0, 5.0], [1.0, 1.0, 5.0], [1.0, 4.0, 5.0]]))
    scores[0, 0] = torch.log(torch.tensor([[1.0, 1.0], [1.0, 3.0], [9.0, 1.0]]))
    wanted = torch.ones(2, 1, 3, 1)
    wanted[0, 0, 2] = 100.0
    parts = sea_loss(scores, q, q, torch.zeros(2, 1, 3, 1), target, wanted, torch.tensor([2, 3]), causal=False)
    first = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)  # teacher (3/4, 1/4) against (1/2, 1/2)
    second = 0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)  # teacher (1/2, 1/2) against (1/4, 3/4)
    found = {name: float(value) for name, value in parts.items()}
    assert found == pytest.approx(
        {
            "estimate KL": 0.1 * (first + second) / 5,  # five real tokens
            "estimate MSE": 4 * 0.25**2 / 18,  # over all pairs, where padding's gap is zero
            "scores KL": 0.1 * first / 5,  # flat scores are right for the second query
            "scores MSE": 2 * 0.25**2 / 18,
            "context MSE": 5 / 6,
        },
        rel=1e-5,
    )


def test_causal_losses_are_divided_by_all_rows():
    q = torch.zeros(1, 2, 3, 4)
    scores = torch.log(torch.tensor([1.0, 2.0, 3.0])).expand(1, 2, 3, 3)
    parts = sea_loss(scores, q, q, q, torch.zeros(1, 2, 3, 3), q, torch.tensor([3]), causal=True)
    # Row i reads its keys' cells: row 0 the middle one, row 1 the first and last (1 : 3), row 2 all of them.
    kl = (0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)) + sum(log(1 / 3 / (x / 6)) / 3 for x in (1, 2, 3))
    mse = 2 * 0.25**2 + sum((x / 6 - 1 / 3) ** 2 for x in (1, 2, 3))
    found = {name: float(value) for name, value in parts.items()}
    nothing = {"scores KL": 0.0, "scores MSE": 0.0, "context MSE": 0.0}
    assert found == pytest.approx({"estimate KL": 0.1 * 2 * kl / 6, "estimate MSE": 2 * mse / 18} | nothing, rel=1e-5)


def test_students_scores_are_scaled_by_the_root_of_the_width():
    q = torch.tensor([[[[2.0, 0, 0, 0], [0, 0, 0, 0]]]])
    k = torch.tensor([[[[1.0, 0, 0, 0], [0, 0, 0, 0]]]])  # q k^T / sqrt(4) = (1, 0) in the first row
    flat = torch.zeros(1, 1, 2, 2)
    parts = sea_loss(flat, q, k, q, flat, q, torch.tensor([2]), causal=False)
    share = exp(1) / (exp(1) + 1)
    kl = 0.5 * log(0.5 / share) + 0.5 * log(0.5 / (1 - share))
    assert float(parts["scores KL"]) == pytest.approx(0.1 * kl / 2, rel=1e-5)
    assert float(parts["scores MSE"]) == pytest.approx(2 * (share - 0.5) ** 2 / 4, rel=1e-5)


# Teacher and oracle --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_teacher_is_dense_attention_in_a_loop(causal, given, assert_close):
    q, k, v, keep = given
    scores, context = teacher(q, k, v, keep, causal=causal)
    q, k, v = map(numpy, (q, k, v))
    wanted, mixed = np.full((2, 2, 5, 5), -np.inf), np.zeros((2, 2, 5, 4))
    for n, h, i in np.ndindex(2, 2, 5):
        seen = [j for j in range(LENGTHS[n]) if j <= i or not causal]
        wanted[n, h, i, seen] = [q[n, h, i] @ k[n, h, j] / 2 for j in seen]
        mixed[n, h, i] = softmax(wanted[n, h, i, seen]) @ v[n, h, seen]
    assert_close(scores, wanted)
    assert_close(context, mixed)


@pytest.mark.parametrize("causal", [False, True])
def test_oracle_s_cells_are_means_of_the_keys_they_hold(causal, given, assert_close):
    q, k, *_ = given
    found = oracle_estimate(q, k, 3, LENGTHS, causal=causal)
    q, k = numpy(q), numpy(k)
    for n, h in np.ndindex(2, 2):
        for i in range(LENGTHS[n]):
            visible = i + 1 if causal else LENGTHS[n]
            shares = softmax(k[n, h, :visible] @ q[n, h, i] / 2)
            held = [[shares[j] for j in range(visible) if cell_of(j, visible, 3) == c] for c in range(3)]
            assert_close(found[n, h, i], np.array([np.mean(cell) if cell else 0 for cell in held]))
