# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'Pruning before training leaves holes that no kernel skips: take from it only how much of each layer
#       to keep, crop whole channels, and train a small dense net.'
#     thumbnail: 'record:speed/time of an epoch?net=residual&density=0.03&form=dense|masked|cropped'
#     title: 'PreCropping: crop channels before training'
# ---

# %% [markdown]
# # PreCropping: crop channels before training
#
# Y. Cai, W. Hua, H. Chen, G. E. Suh, C. De Sa, Z. Zhang, *Structured Pruning is All You Need for Pruning CNNs at
# Initialization*, 2022, [arXiv 2203.02549](https://arxiv.org/abs/2203.02549).
#
# Most weights of a convolutional net can be removed before it has learned anything, and it still learns nearly as
# well. But it does not get faster, because the weights that are left lie scattered. This paper asks what of such a mask
# is really needed, and finds: one number for each layer. By the end you will have scored weights, shuffled a mask,
# filled layers with water, cropped a net, and measured what all of this costs and saves.
#
# Numbers carry a label. **counted** follows from structure and from initial weights, **measured** needed a clock or
# trained weights. Keep your changes in your own copy: `workbench copy precropping`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
import torch

from workbench import record
from workbench.app.notebook import claims, show, table

ROUNDS = {"tiny": 3, "small": 100, "full": 100}[os.environ.get("WORKBENCH_SIZE", "small")]

# %% [markdown]
# ## 1. The question
#
# Here is a small residual net for handwritten digits of 8 x 8 pixels: a stem, six blocks of two convolutions, and a
# linear layer. How are its weights distributed over its layers?

# %%
from workbench.models.compression.channel_graph import channel_groups
from workbench.models.compression.crop_networks import ResNetSpec

spec = ResNetSpec()
graph, net = channel_groups(spec), spec.build(seed=1)
sizes = graph.sizes()
show(
    go.Figure(go.Bar(x=list(sizes), y=list(sizes.values()))).update_layout(yaxis_title="weights (counted)", height=320),
    "Weights of every layer: the last stage has most of them.",
)

# %% [markdown]
# A pruner at initialisation gives every weight a score before any training, and keeps the highest. Say that 3 per cent
# stay. **The question: what of this choice matters? Which weights stay, or only how many of each layer?** If only the
# numbers matter, nobody needs a sparse net.
#
# ## 2. The picture
#
# Here is what one pruner, SynFlow, keeps of a layer. Each cell is a pair of an input and an output channel; it is
# darker the more of the nine weights of their kernel stay. In the middle, as many weights at random places. On the
# right, whole channels.

# %%
from workbench.explorers.layer_density.explorer import explorer

view = explorer(density=0.03, rounds=ROUNDS, section="mask", layer="blocks.3.conv1")
view

# %% [markdown]
# Press *Shuffle again*. The second picture changes, but a dense kernel still has to multiply everything, as for the
# first. Only the third is a smaller layer, and it is as dense as any.
#
# ## 3. The formula and its reference
#
# SynFlow needs no data. Take every weight at its absolute value, send ones through the net, and add up what comes out:
#
# $$R = \mathbf 1^T \Big(\prod_l |W_l|\Big)\, \mathbf 1, \qquad
# \text{score} = \Big|\frac{\partial R}{\partial \theta}\,\theta\Big|$$
#
# The score of a weight is the share of the flow that passes through it. In a chain all of the flow passes through each
# layer, so the scores of every layer add up to $R$. Check it on two small layers.

# %%
from workbench.models.compression.pai_scores import layerwise_density, pai_masks, pai_scores

chain = torch.nn.Sequential(torch.nn.Linear(5, 7, bias=False), torch.nn.ReLU(), torch.nn.Linear(7, 3, bias=False))
first, second = (layer.weight.detach().double().abs() for layer in (chain[0], chain[2]))
flow = (second @ first).sum()
scores = pai_scores(chain, "synflow", input_shape=(5,))
assert all(torch.isclose(score.sum(), flow) for score in scores.values())
assert torch.allclose(scores["0"], second.sum(0)[:, None] * first)  # what goes on, times the weight
table(["layer", "sum of its scores (counted)"], [[n, f"{float(s.sum()):.12f}"] for n, s in scores.items()])

# %% [markdown]
# SynFlow prunes a little, scores the masked net again, and repeats. What happens with one round only? The bars show how
# many weights of each layer stay at a density of 1 per cent.

# %%
few, many = (
    {n: int(m.sum()) for n, m in pai_masks(net, "synflow", 0.01, r, input_shape=spec.image).items()}
    for r in (1, ROUNDS)
)
figure = go.Figure([go.Bar(x=list(few), y=list(kept.values()), name=name)
                    for name, kept in (("1 round", few), (f"{ROUNDS} rounds", many))])  # fmt: skip
figure.update_layout(yaxis_title="weights that stay (counted)", height=340)
show(figure, f"Weights of each layer: after one round {list(few.values()).count(0)} layers keep nothing.")

# %% [markdown]
# With one round, small differences between layers decide, and the late layers lose everything. With many rounds a layer
# that has lost much has few weights to share its flow, so each of them gets a high score and is kept.
#
# **First insight: after many rounds most layers keep about equally many weights**, although the largest is two hundred
# times as large as the smallest. The second version of the paper says why. The expected flow of a chain is proportional
# to the product of its densities $p_l$, and under a budget $B$ on $\sum_l \alpha_l\, p_l$ it is largest for
#
# $$p_l = \min\Big(1, \frac{\lambda}{\alpha_l}\Big):$$
#
# fill all layers with water up to the same level $\lambda$. A layer that is smaller than the level is full. In a net
# with shortcuts this is no more than a good guess: a shortcut lies beside two convolutions, not behind them. Find the
# two shortcuts in the picture: they keep far less than the level.

# %%
from workbench.models.compression.precropping import synexp_density


def densities_by_hand(alphas, budget):
    low, high = 0.0, max(alphas)
    for _ in range(100):  # halve: too little water, or too much
        level = (low + high) / 2
        low, high = (level, high) if sum(min(a, level) for a in alphas) < budget else (low, level)
    return [min(1.0, low / a) for a in alphas]


assert np.allclose(synexp_density([100, 1000, 10_000], 1200), densities_by_hand([100, 1000, 10_000], 1200))
synexp_density([100, 1000, 10_000], 1200)

# %% [markdown]
# ## 4. The fast form
#
# Densities are not widths. If an input keeps the share $r_a$ of its channels and the output the share $r_b$, the layer
# keeps $r_a r_b$. And channels that are added must be cropped alike: the residual stream of a stage is one *group*.
# So the logarithms of all factors are fitted to those of the densities by least squares, then all are shifted until
# the rounded widths fill the budget.

# %%
from workbench.models.compression.crop import build_cropped, count_params
from workbench.models.compression.precropping import precrop

budget = 0.1 * sum(sizes.values())
masks = pai_masks(net, "synflow", 0.1, ROUNDS, input_shape=spec.image)
widths = precrop(graph, layerwise_density(masks), budget)
cropped = build_cropped(spec, widths, seed=1)
assert count_params(cropped, every=False) == graph.count(graph.widths | widths) <= budget
table(["group", "channels", "cropped to (counted)"], [[n, graph.widths[n], w] for n, w in widths.items()])

# %% [markdown]
# The same weights can also be run as they lie: unroll the pictures into columns and multiply them with a sparse matrix.
# Both forms of the masked net must agree.

# %%
from workbench.data import images
from workbench.models.compression.im2col import run_sparse
from workbench.models.compression.pai_scores import masked

digits = torch.from_numpy(images.digits()[1][0])[:, None]
with torch.no_grad():
    dense_form, sparse_form = masked(net, masks).eval()(digits), run_sparse(net, masks)(digits)
assert torch.allclose(dense_form, sparse_form, atol=1e-4 * float(dense_form.abs().max()))

# %% [markdown]
# One call does all of it to a model of your own. The model is traced; what cannot be followed is named.

# %%
from workbench.models.compression.crop import crop_before_training

own = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
    torch.nn.Conv2d(32, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64 * 64, 10),
)  # fmt: skip
small = crop_before_training(own, 0.25, example=torch.zeros(1, 3, 16, 16), rounds=ROUNDS)
small.model

# %% [markdown]
# ## 5. Play
#
# 1. Lower the density. Which layers are cropped most, and which stay whole?
# 2. Set *Channels* to *only inside of residual blocks*. Why is there a density below which this is impossible?
# 3. Score by magnitude. Which layers does it empty?
# 4. Open *Rounds* and move the rounds from 1 to 100. When does the last layer get its first weight?
# 5. Open *Accuracy*. *Train it here* trains both nets of your setting beside those of the record.

# %%
from workbench.papers import get

get("precropping").view(rounds=ROUNDS)

# %% [markdown]
# ## 6. The experiment
#
# `workbench run precropping` repeats everything at full size, with 15 epochs, and writes records; from here on this
# notebook only reads them. Every row below was trained alike and has equally many weights.


# %%
def recorded(experiment):
    try:
        return record.read("precropping", experiment)["rows"]
    except FileNotFoundError:
        return []  # not run yet


def seen(rows, quantity, **labels):
    return [r["value"] for r in rows if r["quantity"] == quantity and all(r.get(k) == v for k, v in labels.items())]


evidence, residual = recorded("evidence"), {"net": "residual"}
ways = dict.fromkeys(r["training"] for r in evidence if r["net"] == "residual" and r["density"] < 0.5)
columns = {
    d: {w: seen(evidence, "test accuracy", training=w, density=d, **residual) for w in ways} for d in (0.1, 0.03)
}
table(
    ["way to prune", *(f"density {d}: mean, worst and best seed (measured)" for d in columns)],
    [
        [
            way,
            *(
                f"{np.mean(of[way]):.3f} ({min(of[way]):.3f} to {max(of[way]):.3f})" if of[way] else ""
                for of in columns.values()
            ),
        ]
        for way in ways
    ],
)

# %% [markdown]
# Read it in this order. Does shuffling change anything? Do new weights under an old mask? Does the same density in
# every layer, which ignores the pruner? And does the cropped net keep up with the masked one? *Uniform
# width* is the honest rival: the same share of channels everywhere, which needs no pruner at all.
#
# Now the time of an inference, with one thread and all 360 test pictures at once.

# %%
times = [r for r in recorded("speed") if r["quantity"] == "time of an inference" and r["batch"] == 360]
forms = dict.fromkeys(r["form"] for r in times)
figure = go.Figure(
    [
        go.Bar(
            name=f"density {d}",
            x=list(forms),
            y=[np.mean(seen(times, "time of an inference", form=f, density=d, net="residual")) for f in forms],
        )
        for d in (0.1, 0.03)
    ]
).update_layout(yaxis_title="ms (measured)", height=340)
show(figure, "Time of an inference of the dense, masked and cropped residual net, and of sparse products.")

# %% [markdown]
# **Second insight: holes in a matrix save a dense kernel nothing, and a sparse kernel not enough.** At so few pixels
# and channels, a sparse product has too little to do for each weight that it looks up. The cropped net needs dense
# products only, and smaller ones.
#
# ## 7. The claim beside ours, and what was left out

# %%
try:
    shown = claims("precropping")
except FileNotFoundError as missing:
    shown = f"not all experiments have been recorded: {missing}"
shown

# %% [markdown]
# *published* claims stand in the abstracts of the two versions of the paper; those *from memory* could not be checked.
# No code of the authors was found, so the fit of widths to densities is ours. The digits are an easy task: most rows
# reach 98 per cent, and a difference of one point is less than four pictures among 360.
#
# Left out: ImageNet, and trainings on CIFAR-10, which `workbench.data.cifar10` loads when you ask it to. ShuffleNet
# shuffles channels between groups, which our trace does not follow.
#
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("precropping/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** Which share of its weights does this layer keep? **2.** How many weights do these blocks have?

# %%
from workbench.app.exercises import check, given, hint

given("precropping/share"), given("precropping/block")

# %%
share, weights, score, kept_by_snip, level, fill = ..., ..., ..., ..., ..., ...
check("precropping/share", share)

# %%
check("precropping/block", weights)

# %% [markdown]
# **3.** What is the SynFlow score of this weight? **4.** Which two weights does SNIP keep? **5.** At which level does
# the water stand? **6.** Write a function (sizes, budget) that fills layers of any sizes; it will be tried on
# budgets of the shares given last.

# %%
given("precropping/flow"), given("precropping/snip"), given("precropping/level"), given("precropping/fill")

# %%
check("precropping/flow", score)

# %%
check("precropping/snip", kept_by_snip)

# %%
check("precropping/level", level)

# %%
check("precropping/fill", fill)  # def fill(sizes, budget): ...

# %% [markdown]
# Are you stuck? Each call gives one more hint.

# %%
hint("precropping/fill")
