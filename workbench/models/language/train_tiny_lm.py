"""Train the embedded language model: ``python -m workbench.models.language.train_tiny_lm --minutes 70``.

The embeddings start from the statistics of neighbouring tokens, so that the first step already predicts nearly as well
as a bigram model. Matrices of the layers follow Muon (Jordan 2024), everything else AdamW; the learning rate falls as a
cosine over the steps or the minutes given, whichever runs out first. Most of the run sees short windows, the last part
2048 tokens. The state is kept every few minutes, ``--resume`` goes on from it; ``--extend`` goes on from the shipped
weights, with a new schedule and 2048 tokens only. At the end held-out text is measured
against byte n-gram models and the record and the model card are written; ``--evaluate`` does only that.
"""

import argparse
import logging
import time
from math import cos, pi
from pathlib import Path

import numpy as np
import torch

from workbench.data import text
from workbench.data.tokenizer import Tokenizer
from workbench.folders import WEIGHTS
from workbench.models.language import model_card, pair_statistics, tiny_lm

LOG = logging.getLogger("train_tiny_lm")
MIXTURE = {"documentation": 0.12, "library": 0.58, "tests": 0.30}  # share of windows; prose is scarce, so oversampled
TOKENS_PER_STEP = 4096
STAGES = ((0.85, 256), (1.0, 2048))  # (up to this share of the run, tokens per window)
MUON_RATE, ADAM_RATE, WARM_UP, LAST_RATE = 0.02, 0.003, 0.02, 0.02


def streams(tokenizer, kept=None) -> dict[str, np.ndarray]:
    """Return the training tokens of each corpus that this machine has: name -> int64 (tokens,).

    They are read from the file ``kept`` if it exists, else written there.
    """
    if kept is not None and Path(kept).exists():
        return dict(np.load(kept))
    found = {name: tokenizer.encode_documents(d.text for d in text.documents(name, "train")) for name in MIXTURE}
    found = {name: ids for name, ids in found.items() if len(ids) > 4096}
    if kept is not None:
        Path(kept).parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **found)
    return found


def batch(corpora, step, window, seed):
    """Draw windows of ``window + 1`` tokens, equal for equal seed and step: int64 (b, window + 1)."""
    rng = np.random.default_rng((seed, step))
    names = list(corpora)
    share = np.array([MIXTURE[name] for name in names])
    rows = []
    for name in rng.choice(names, TOKENS_PER_STEP // window, p=share / share.sum()):
        ids = corpora[name]
        start = rng.integers(0, len(ids) - window)
        rows.append(ids[start : start + window + 1])
    return torch.from_numpy(np.stack(rows))


def attention(q, k, v, layer):
    """Dense causal attention in float32: on CPUs its backward pass takes less time than the one in bfloat16."""
    with torch.autocast("cpu", enabled=False):
        return tiny_lm.dense_attention(q.float(), k.float(), v.float()).to(v.dtype)


def optimizers(model):
    """Return Muon for the layers' matrices and AdamW for the embedding and the norms."""
    matrices = [p for p in model.layers.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    muon = torch.optim.Muon(matrices, lr=MUON_RATE, momentum=0.95, weight_decay=0.05)
    return muon, torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)


def compile_parts(model):
    """Compile what lies between attention calls; the layers are alike and share their compiled code."""
    for layer in model.layers:
        layer.qkv, layer.finish = (torch.compile(part, dynamic=False) for part in (layer.qkv, layer.finish))
    model.cost = torch.compile(model.cost, dynamic=False)


def rate(progress):
    """Return the factor on the learning rates at a share of the run: linear warm-up, then a cosine."""
    if progress < WARM_UP:
        return (progress + 1e-4) / WARM_UP
    fall = (progress - WARM_UP) / (1 - WARM_UP)
    return LAST_RATE + (1 - LAST_RATE) * (1 + cos(pi * min(fall, 1.0))) / 2


def train(
    minutes,
    steps,
    state_path,
    *,
    resume=False,
    extend=False,
    seed=0,
    threads=2,
    compile=True,
    minutes_between_saves=3.0,
):
    """Train and return the model and what the record says of the run."""
    torch.set_num_threads(threads)
    tokenizer_path = WEIGHTS / "tokenizer.json"
    if not (resume or extend):
        texts = (d.text for d in text.documents(("documentation", "library"), "train"))
        Tokenizer.train(texts, tiny_lm.TinyConfig.vocabulary).write(tokenizer_path)
    tokenizer = Tokenizer.read(tokenizer_path)
    tokens_path = Path(state_path).with_name("tokens.npz")
    if not resume:
        tokens_path.unlink(missing_ok=True)
    corpora = streams(tokenizer, tokens_path)
    model = tiny_lm.TinyLM(tiny_lm.TinyConfig(vocabulary=tokenizer.size), tokenizer)
    if extend:
        model.load_state_dict(tiny_lm.load().state_dict())
    elif not resume:
        pair_statistics.start(model, corpora)
    muon, adam = optimizers(model)
    run = {
        "steps": 0,
        "tokens": 0,
        "wall_s": 0.0,
        "curve": [],
        "seed": seed,
        "threads": threads,
        "windows": {},
        "corpora_tokens": {name: len(ids) for name, ids in corpora.items()},
        "mixture": {name: MIXTURE[name] for name in corpora},
        "text": text.provenance(),
        "torch": str(torch.__version__),
    }
    if resume:
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        run = state["run"]
    if extend:
        run = model_card.read()["training"]
        run["schedule_from"] = {"steps": run["steps"], "wall_s": run["wall_s"]}
    if compile:
        compile_parts(model)
    first = run.setdefault("schedule_from", {"steps": 0, "wall_s": 0.0})
    before, start, saved, smooth = run["wall_s"], time.monotonic(), time.monotonic(), None
    while True:
        run["wall_s"] = before + time.monotonic() - start
        progress = max((run["steps"] - first["steps"]) / steps, (run["wall_s"] - first["wall_s"]) / (60 * minutes))
        finished = progress >= 1
        if finished or time.monotonic() - saved > 60 * minutes_between_saves:
            keep(model, muon, adam, run, state_path)
            saved = time.monotonic()
        if finished:
            return model.eval(), run
        window = STAGES[-1][1] if first["steps"] else next(w for share, w in STAGES if progress < share)
        tokens = batch(corpora, run["steps"], window, seed)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(tokens, attention=attention)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, top in ((muon, MUON_RATE), (adam, ADAM_RATE)):
            for group in optimizer.param_groups:
                group["lr"] = top * rate(progress)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        run["steps"] += 1
        run["tokens"] += TOKENS_PER_STEP
        run["windows"][str(window)] = run["windows"].get(str(window), 0) + 1
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if run["steps"] % 10 == 0:
            run["curve"].append([run["steps"], window, round(smooth, 4)])
            LOG.info("step %d  window %d  loss %.3f  %.1f min", run["steps"], window, smooth, run["wall_s"] / 60)


def keep(model, muon, adam, run, path):
    """Store the state of a run so that a cut leaves the last one whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(), "run": run}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    tiny_lm.save(model, path.with_suffix(".safetensors"))


def ship(state_path):
    """Copy a run's weights to the package, measure them, and write the record and the model card."""
    state = torch.load(state_path, weights_only=True)
    tokenizer = tiny_lm.tokenizer()
    model = tiny_lm.TinyLM(tiny_lm.TinyConfig(vocabulary=tokenizer.size), tokenizer)
    model.load_state_dict(state["model"])
    tiny_lm.save(model, WEIGHTS / "tiny_lm.safetensors")
    record = model_card.measure(tiny_lm.load(), state["run"], model_card.read())
    model_card.write(record)


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=90.0, help="wall time of the schedule at most, with its earlier parts"
    )
    parser.add_argument(
        "--steps", type=int, default=4000, help=f"steps of the schedule at most, of {TOKENS_PER_STEP} tokens"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, default=Path(".workbench/train_tiny_lm/state.pt"))
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from --state")
    start.add_argument("--extend", action="store_true", help="go on from the shipped weights with a new schedule")
    parser.add_argument("--no-compile", action="store_true", help="run without torch.compile (no C++ compiler needed)")
    parser.add_argument("--evaluate", action="store_true", help="only ship and measure what --state holds")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not options.evaluate:
        train(
            options.minutes,
            options.steps,
            options.state,
            resume=options.resume,
            extend=options.extend,
            seed=options.seed,
            threads=options.threads,
            compile=not options.no_compile,
        )
    torch.set_num_threads(options.threads)
    ship(options.state)


if __name__ == "__main__":
    main()
