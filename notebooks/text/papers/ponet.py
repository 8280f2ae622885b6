# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   workbench:
#     description: 'Tokens mixed by pooling at three ranges instead of attention, at a cost
#       that grows with the length and not with its square.'
#     title: 'PoNet: pooling instead of attention'
#     thumbnail: 'record:timing/time of a training step, batch 4?tokens=4096&mixing=attention|PoNet|FNet'
# ---

# %% [markdown]
# # PoNet: pooling instead of attention
#
# C.-H. Tan, Q. Chen, W. Wang, Q. Zhang, S. Zheng, Z.-H. Ling, *PoNet: Pooling Network for Efficient Token Mixing in
# Long Sequences*, 2021, [arXiv 2110.02442](https://arxiv.org/abs/2110.02442).
#
# Attention connects every token with every other, which costs the square of the length. This paper asks how much of
# that can be replaced by something as simple as a *maximum*. By the end you will have built its three poolings, seen
# why they need one small product to be of any use, and measured what they cost.
#
# Numbers carry a label. **counted** follows from structure, **measured** needed a clock or trained weights.
# Keep your changes in your own copy: `workbench copy ponet`.

# %% workbench={"step": "Loading"}
import os

import numpy as np
import plotly.graph_objects as go
import torch

from workbench.app.notebook import claims, pictures, show, table

STEPS = {"tiny": 3, "small": 60, "full": 200}[os.environ.get("WORKBENCH_SIZE", "small")]


# %% [markdown]
# ## 1. The question
#
# What does a token need to know about the others? The paper names three things: what the *whole text* is about, what
# its own *sentence* says, and what its *neighbours* are. Attention provides all three at once, with a matrix of
# $N \times N$ weights. Compare the size of that matrix with one of $N$ tokens by $D = 64$ features.

# %%
table(
    ["tokens N", "N x N (counted)", "N x 64 (counted)", "ratio"],
    [[f"{n:,}", f"{n * n:,}", f"{64 * n:,}", f"{n / 64:g}"] for n in (64, 512, 4096, 16384)],
)

# %% [markdown]
# **The question: can the three be provided one by one, without ever forming the large matrix?**

# %% [markdown]
# ## 2. The picture
#
# Here are seven tokens in three sentences, with one feature. Take the *largest* value of every sentence, and the
# largest of every token with its two neighbours.

# %%
from workbench.models.attention.ponet import local_max_pool, segment_max_pool

values = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 0.0, 6.0])[None, :, None]
sentences = torch.tensor([0, 0, 0, 1, 1, 2, 2])
pooled = {
    "sentence": sentences,
    "value": values[0, :, 0].int(),
    "largest of the sentence": segment_max_pool(values, sentences)[0, :, 0].int(),
    "largest of three neighbours": local_max_pool(values)[0, :, 0].int(),
}
table(["token", *range(7)], [[name, *x.tolist()] for name, x in pooled.items()])

# %% [markdown]
# Check the last two rows by eye. Token 2 has a neighbour in the next sentence: the local maximum includes it, the
# maximum of the sentence does not. With 64 features, each feature chooses its own largest token.
#
# A third pooling covers the whole text: *one* attention query for all tokens, the mean of all queries. So there is one
# row of weights instead of $N$.
#
# | range | how | from which tokens |
# |---|---|---|
# | global | one attention query, the mean | all tokens, weighted |
# | segment | maximum of each feature | one token of the sentence for each feature |
# | local | maximum of each feature | one token of three for each feature |

# %% [markdown]
# ## 3. The formula and its reference
#
# Five linear maps of the input $X$: $H_q, H_k, H_o, H_s, H_l$. Then
#
# $$\bar q = \tfrac1N\sum_n H_q[n], \qquad a = \mathrm{softmax}(H_k \bar q / \sqrt d), \qquad g = \sum_n a_n H_k[n]$$
#
# $$S[n] = \max_{m \,\in\, \text{segment of } n} H_s[m], \qquad L[n] = \max_{|m-n| \le 1} H_l[m]$$
#
# $$P[n] = (g + S[n]) \odot H_o[n] + L[n]$$
#
# Note two things. There is no separate value: $H_k$ is key and value. And only the shared vectors $g$ and $S$ are
# multiplied by $H_o$; the local one is added as it is. The reference computes this in loops:


# %%
def global_reference(hq, hk):
    mean = hq.mean(axis=0)
    weights = np.exp(hk @ mean / np.sqrt(hk.shape[1]))
    weights /= weights.sum()
    return weights @ hk, weights


def segment_reference(hs, segments):
    return np.array([hs[segments == segment].max(axis=0) for segment in segments])


def local_reference(hl):
    return np.array([hl[max(0, n - 1) : n + 2].max(axis=0) for n in range(len(hl))])


# %% [markdown]
# ## 4. The fast form
#
# The module computes all of it at once, for batches, heads and padding. With one head, its parts must equal the loops.

# %%
from workbench.models.attention.ponet import PoNetMixing, global_aggregation, pooling_fusion

torch.manual_seed(0)
mixing = PoNetMixing(8, 1).double()
x = torch.randn(1, 7, 8, dtype=torch.float64)
hq, hk, ho, hs, hl = (layer(x)[0].detach() for layer in (mixing.q, mixing.k, mixing.o, mixing.s, mixing.l))
g, weights = global_reference(hq.numpy(), hk.numpy())
s, l = segment_reference(hs.numpy(), sentences.numpy()), local_reference(hl.numpy())
fast_g, fast_weights = global_aggregation(hq[None, None], hk[None, None])
assert np.allclose(fast_g[0, 0], g) and np.allclose(fast_weights[0, 0], weights)
assert np.allclose(segment_max_pool(hs[None], sentences)[0], s)
assert np.allclose(local_max_pool(hl[None])[0], l)

# %%
fused = pooling_fusion(torch.from_numpy(g), torch.from_numpy(s), torch.from_numpy(l), ho)
assert torch.allclose(mixing(x, sentences)[0], mixing.out(fused))
f"{sum(p.numel() for p in mixing.parameters())} parameters: 6 D² + 6 D = {6 * 64 + 6 * 8} for D = 8 (counted)"

# %% [markdown]
# ### Why the product?
#
# Leave out the local pool and the product with $H_o$. What do two tokens of one sentence get?

# %%
bare = PoNetMixing(8, 1, use=("ga", "smp"), fuse=False).double()
product = PoNetMixing(8, 1, use=("ga", "smp")).double()


def same_rows(layer):
    out = layer(x, sentences)[0]
    return torch.cdist(out, out).detach().numpy().round(6)


pictures({"without the product": same_rows(bare), "with it": same_rows(product)}, "Distances between output rows.")

# %% [markdown]
# The white squares on the left mean that *all tokens of a sentence get the same output*. Nothing later in the layer can
# tell them apart. **First insight: pooling gives one vector to many tokens, and the product with each token's own
# features makes them different again**, at the price of one multiplication for each feature, without a matrix of
# weights.
#
# ### Which tokens contribute
#
# Pooling has no attention matrix, but one can say which tokens contribute: the row of global weights, and for each
# maximum the share of features in which a token is the largest.

# %%
from workbench.models.attention.ponet import influence_map

_, seen = mixing(x, sentences, return_maps=True)
read = {"global": seen.ga[0, 0], "segment": seen.smp[0, 0], "local": seen.lmp[0, 0]}
pictures(read | {"all: influence": influence_map(mixing, x, sentences)}, "Rank one, block diagonal, tridiagonal, all.")

# %% [markdown]
# The three pictures are equal rows, blocks, and a band. Every row sums to 1. The last picture checks them with the
# layer itself: how much does output $i$ change with input $j$ (norm of the derivative)? It shows all three structures.

# %%
for picture in read.values():
    assert np.allclose(picture.sum(axis=1), 1)
assert (read["segment"][sentences[:, None] != sentences] == 0).all()
assert (read["local"][np.abs(np.subtract.outer(range(7), range(7))) > 1] == 0).all()

# %% [markdown]
# ## 5. Play
#
# This PoNet has been trained: its two layers learnt to predict masked words in Python's documentation, and whether the
# second part of a text follows the first. The text below is documentation that it has not seen. Every sentence is a
# segment, and so are [CLS] and [SEP], which get the global part only. The left picture shows what full attention
# between its queries and keys would be, the right one the mean of its three poolings.
#
# 1. Choose *tokens chosen by segment max-pooling* as the right picture: one block for each sentence. Which words have
#    the maximum in many channels? Are there words that have it in none?
# 2. Choose *fused output*: a row for each token, a column for each channel; hovering names both. Turn off *Product with
#    each token*, then *Local max-pooling*. When do the columns become stripes as long as a sentence?
# 3. With both still off, look at the *cosine similarity of output rows*. How many different rows are left? The table
#    counts them.
# 4. Look at the score of every key below, which is the row of global weights. Choose other heads: one attends to a
#    single kind of sign, others attend to all words nearly alike.
# 5. Set *Segments* to your own starts, and click a picture to add or remove a border.
# 6. Change *Queries and keys* to MiniLM. It has no such projections, so the table says what is used instead.

# %%
from workbench.papers import get

get("ponet").view()

# %% [markdown]
# How much has it learnt? These numbers were recorded when it was trained.

# %%
from workbench.models.attention.ponet_training import shipped

learnt = shipped().record
table(
    ["held-out text (measured)", "loss per masked word", "masked words guessed"],
    [
        [name, f"{learnt[name]['loss per masked word']:.2f}", f"{learnt[name]['masked words guessed']:.3f}"]
        for name in ("PoNet", "word frequencies")
    ],
)

# %% [markdown]
# Now train one yourself. A handwritten digit is a sequence of 64 pixels, and the model is never told that pixels 8
# apart lie above one another. (This cell trains for a few steps only; section 6 trains longer.)

# %%
from workbench.papers.ponet.digits import MIXINGS, accuracy, sequences, train

model = train(MIXINGS["PoNet"], STEPS, seed=1)
f"after {STEPS} steps: {accuracy(model):.0%} of the test digits (measured), chance 10%"

# %%
from workbench.data.images import digits

images, labels = digits()[1]
ids = sequences(images[:1])
encoder, segments = model.encoder, model.segments
_, seen = encoder.mixings[0](encoder(ids, segments, until=0), segments, return_maps=True)
winners = {"the digit": ids[0], "global weights": seen.ga[0, 0, 0], "maxima of segments": seen.smp[0, 0].sum(0)}
winners["local maxima"] = seen.lmp[0, 0].sum(0)
maps = {name: np.asarray(x).reshape(8, 8) for name, x in winners.items()}
pictures(maps, f"A {labels[0]}, and which pixels contribute.", height=260)

# %% [markdown]
# Which pixels contribute? Once the model is trained, the ink and its edges should contribute more than the empty
# background. Train for more steps, and with another pooling left out (`MIXINGS` has them all).

# %% [markdown]
# ## 6. The experiment
#
# `workbench run ponet` trains everything longer and writes records; from here on the notebook only reads them.

# %%
from workbench import record

chosen = [r for r in record.read("ponet", "image")["rows"] if r["chosen"]]
found = {}
for r in chosen:
    found.setdefault(r["mixing"], {}).setdefault(r["quantity"], []).append(r["value"])
rates = {r["mixing"]: f"{r['rate']:g}" for r in chosen}


def over_seeds(values):
    error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{error}"


columns = ("test accuracy", "training accuracy")
table(
    [f"after {chosen[0]['steps']:,} steps (measured)", *columns, "seeds", "rate", "parameters"],
    [
        [name, *(over_seeds(x[c]) for c in columns), len(x[columns[0]]), rates[name], f"{x['parameters'][0]:,}"]
        for name, x in found.items()
    ],
)

# %% [markdown]
# All of them know nearly all the digits that they were trained on (second column), so the first column compares what
# they learnt and not how fast. Each was trained at two peak rates from the same seeds; digits that neither training nor
# test uses chose the rate. Behind ± stands the standard error over the seeds.
#
# Look for the differences that are larger than twice their error. Pooling recognises more digits than attention. Its
# lead over the fixed Fourier transform is smaller than the paper's and not certain. What is left out costs accuracy
# most where it is the maximum over segments; for the global part the seeds disagree, so its share is not certain.
# Section 7 compares seed by seed.
#
# The next picture shows the time of one layer, forward and backward:

# %%
timing = record.read("ponet", "timing")
layer = [r for r in timing["rows"] if r["quantity"].startswith("time of a layer")]
figure = go.Figure()
for name in ("PoNet", "attention", "FNet"):
    points = [(r["tokens"], r["value"]) for r in layer if r["mixing"] == name]
    figure.add_scatter(x=[p[0] for p in points], y=[p[1] for p in points], name=name, mode="lines+markers")
figure.update_layout(xaxis_title="tokens", yaxis_title="ms (measured)", height=380)
figure.update_xaxes(type="log").update_yaxes(type="log")
show(figure, "On logarithmic axes attention is steeper; the lines cross.")

# %%
times = {(r["mixing"], r["tokens"]): r["value"] for r in layer}
lengths = sorted({t for _, t in times})
rows = [[name, *(f"{times[name, t]:.2f}" for t in lengths)] for name in ("PoNet", "attention", "FNet")]
threads = layer[0]["threads"]
table([f"ms, {threads} threads (measured)", *(f"{t:,} tokens" for t in lengths)], rows)

# %% [markdown]
# **Second insight: linear is not the same as fast.** A modern attention kernel keeps its weights in fast memory and
# never writes them out, so it is hard to beat on short sequences. The crossing of the lines shows from which length on
# the square costs more. The next table shows the memory, where the weights *are* written out, as in 2021:

# %%
memory = record.read("ponet", "memory")["rows"]
largest = {(r["mixing"], r["tokens"]): r["value"] for r in memory}
names = dict.fromkeys(name for name, _ in largest)
lengths = sorted({t for _, t in largest})
cells = [[name, *(f"{largest[name, t]:,}" if (name, t) in largest else "" for t in lengths)] for name in names]
table(["largest tensor in bytes (counted)", *(f"{t:,} tokens" for t in lengths)], cells)

# %% [markdown]
# Does pooling learn language? Two layers are trained on sentences of Python's documentation. They predict masked words,
# and whether the second sentence follows the first, comes before it, or comes from elsewhere.

# %%
language = record.read("ponet", "language")["rows"]
found = {}
for r in language:
    found.setdefault(r["mixing"], {}).setdefault(r["quantity"], []).append(r["value"])
columns = ("loss per masked word", "masked words guessed", "orders guessed")
table(
    ["mixing (held-out text, measured)", *columns, "seeds"],
    [[name, *(over_seeds(x[c]) if c in x else "" for c in columns), len(x[columns[0]])] for name, x in found.items()],
)

# %%
(entropy,) = found["word frequencies"]["entropy of the words"]
f"entropy of the words {entropy:.2f} nats (counted): a model that ignores context can do no better on its own text"

# %% [markdown]
# All were trained for as many steps, the first three at the better of two rates on the training text. Pooling guesses
# about twice as many masked words as attention or the Fourier transform: neighbours tell most about a missing word, and
# pooling includes them from the first step on, while attention has to learn where they are. With the order of two
# sentences it is the other way round. Attention and the Fourier transform guess it more often than by chance (one in
# three) with every seed. Pooling does not at the rate that suits masked words best; at half that rate, the shipped
# encoder's, it depends on the seed, as the large error shows. So which mixing learns more in the same time depends on
# what is to be learnt, and neither column says which would be better in the end.

# %% [markdown]
# ## 7. The claim beside ours, and what was left out

# %%
claims("ponet")

# %% [markdown]
# *published* values were read in the paper's abstract or in the authors' repository; those *from memory* could not be
# checked. The paper trains models of 110 million parameters on GPUs for days, ours are a hundred times smaller and
# train for minutes on a CPU. So the accuracies cannot be compared, only their order.
#
# Left out: GLUE, the other four tasks of the Long Range Arena, classification of long documents, and the published
# weights (`chtan/ponet-base-uncased`).

# %% [markdown]
# ## 8. Exercises
#
# Your inputs are your own. `check` explains, `hint("ponet/...")` helps a little more each time.
# A whole number must be exact; of any other number, four significant digits are enough.
#
# **1.** What does the segment pool give for this one feature? Answer with a list, one number per token.

# %%
from workbench.app.exercises import check, given, hint

feature, segment = given("ponet/segment")
feature.tolist(), segment.tolist()

# %%
answer = ...
check("ponet/segment", answer)

# %% [markdown]
# **2.** In the language model every [CLS] and [SEP] is a segment of its own. Number the segments of this line: a list,
# one number per token, starting at 0.

# %%
line = given("ponet/numbering")
" ".join(line)

# %%
answer = ...
check("ponet/numbering", answer)

# %% [markdown]
# **3.** The rule of the Long Range Arena divides $N$ tokens into segments of $\lfloor N / m \rfloor + 1$. How many
# segments are there?

# %%
tokens, wanted = given("ponet/cut")
tokens, wanted

# %%
answer = ...
check("ponet/cut", answer)

# %% [markdown]
# **4.** Given is one feature of one token. What is the result of the fusion?

# %%
parts = given("ponet/fusion")
parts

# %%
answer = ...
check("ponet/fusion", answer)

# %% [markdown]
# **5.** Write the local pool: `x` has one row per token and one column per feature. The window is three tokens; at the
# borders it has only those that exist.

# %%
given("ponet/local")  # tokens and features of the cases that your function will be tried on

# %%
local_pool = ...  # def local_pool(x): ...
check("ponet/local", local_pool)

# %% [markdown]
# **6.** Token $i$ is changed, all others stay the same. For which tokens can the *segment and local parts* change?
# Answer with a sorted list of positions.

# %%
changed, segment = given("ponet/reach")
changed, segment.tolist()

# %%
answer = ...
check("ponet/reach", answer)

# %% [markdown]
# Are you stuck? Each call gives one more hint.

# %%
hint("ponet/reach")
