"""Train the digits' diffusion model and its judge: ``python -m workbench.models.vision.train_digit_diffusion``.

It takes a minute and writes the weights and the model card. AdamW with a rate of 0.002, weight decay 0.01, 4,000 steps
with batches of 128 and a cosine schedule; the judge sees digits and inverted digits with noise of deviation 0.1.
"""

import argparse
import hashlib
import json
import logging

import torch
from torch.nn import functional as F

from workbench.data.images import TRAINING_DIGITS
from workbench.folders import WEIGHTS
from workbench.models.fine_tuning.training import cosine, train
from workbench.models.vision.digit_diffusion import (
    CLASSES,
    FILE,
    JUDGE,
    STYLES,
    DigitDiffusion,
    DigitJudge,
    diffusion_loss,
    draw,
    frechet_distance,
    pictures,
)
from workbench.models.vision.digit_vit import accuracy

__all__ = ["CARD", "RECORD", "held_out", "measured", "pretrain", "train_judge"]

LOG = logging.getLogger("train_digit_diffusion")
RECORD, CARD = WEIGHTS / "digit_diffusion.json", WEIGHTS / "digit_diffusion.md"
STEPS, BATCH, RATE, DECAY = 4000, 128, 2e-3, 0.01
JUDGE_STEPS, NOISE, DRAWN = 2000, 0.1, 100


def pretrain(seed=0, steps=STEPS, report=lambda fraction, step: None) -> DigitDiffusion:
    """Return a diffusion model that was trained on all digits."""
    x, y = pictures()

    def batch_of(step):
        chosen = torch.randint(len(x), (BATCH,), generator=torch.Generator().manual_seed(100_000 * seed + step))
        return x[chosen], y[chosen]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitDiffusion()
    train(model, diffusion_loss, batch_of, steps=steps, rate=RATE, weight_decay=DECAY, schedule=cosine(), seed=seed,
          report=report)  # fmt: skip
    return model.eval().requires_grad_(False)


def train_judge(seed=0, steps=JUDGE_STEPS) -> DigitJudge:
    """Return a classifier of digits and inverted digits, trained on 1,437 of them in both forms."""
    x, y = (part[:TRAINING_DIGITS] for part in pictures())

    def batch_of(step):
        chance = torch.Generator().manual_seed(100_000 * seed + step)
        chosen = torch.randint(len(x), (BATCH,), generator=chance)
        sign = 1.0 - 2.0 * torch.randint(2, (BATCH, 1), generator=chance)
        return sign * x[chosen] + NOISE * torch.randn(BATCH, x.shape[1], generator=chance), y[chosen]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = DigitJudge()
    train(judge, lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]), batch_of, steps=steps, rate=RATE,
          weight_decay=DECAY, schedule=cosine(), seed=seed)  # fmt: skip
    return judge.eval().requires_grad_(False)


def held_out(style):
    """Return the 360 pictures that the judge was not trained on, in a style, and their labels."""
    x, y = pictures(style)
    return x[TRAINING_DIGITS:], y[TRAINING_DIGITS:]


def measured(model, judge, each=DRAWN, seed=0) -> dict[str, float]:
    """Return how often the judge sees the wanted digit in ``each`` pictures of every one, and their distance."""
    labels = torch.arange(CLASSES).repeat_interleave(each)
    drawn = draw(model, labels, seed=seed)
    return {"agreement": accuracy(judge, (drawn, labels)), "distance": frechet_distance(drawn, pictures()[0])}


def main():
    """Train, write the weights, and measure what was written."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description="Train, write and measure the diffusion model of digits.")
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, judge = pretrain(seed, report=lambda fraction, step: LOG.debug(step)), train_judge(seed)
    for each in (model, judge):  # what ships is measured, not what was rounded for it
        each.load_state_dict({name: t.half().float() for name, t in each.state_dict().items()})
    sizes = {name: str(value) for name, value in vars(model.config).items()}
    weights = dict(model.state_dict()) | {JUDGE + name: t for name, t in judge.state_dict().items()}
    save_file({name: t.half() for name, t in weights.items()}, str(FILE), metadata=sizes)
    record = {
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sha256": hashlib.sha256(FILE.read_bytes()).hexdigest(),
        "drawn": {"pictures": CLASSES * DRAWN} | measured(model, judge, seed=seed),
        "judge": {
            "parameters": sum(p.numel() for p in judge.parameters()),
            "all": {style: accuracy(judge, pictures(style)) for style in STYLES},
            "held_out": {style: accuracy(judge, held_out(style)) for style in STYLES},
        },
        "torch": torch.__version__,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    CARD.write_text(card(record), "utf-8")
    LOG.info("%s", record)


def card(record) -> str:
    """Return the model card that belongs to a record."""
    drawn, judge = record["drawn"], record["judge"]
    return f"""# Model card: digit_diffusion

Written by `workbench/models/vision/train_digit_diffusion.py` from `digit_diffusion.json`; do not edit.

A diffusion model of handwritten digits that draws a wanted one: {record["parameters"]:,} parameters, pictures of \
8 x 8 pixels, 100 steps of noise, three residual layers of width 256. The file also holds the judge, a classifier of \
{judge["parameters"]:,} parameters. Stored in float16 (SHA-256 `{record["sha256"][:16]}...`).

## Data and licences

The 1,797 digits of scikit-learn (Alpaydin and Kaynak 1998, UCI, Creative Commons Attribution 4.0), grey levels from \
-1 to 1. The diffusion model was trained on all; the judge on the first {TRAINING_DIGITS:,} of a fixed permutation, \
each as it is and inverted.

## Training

{STEPS:,} steps with batches of {BATCH}, AdamW, rate {RATE}, weight decay {DECAY}, a cosine schedule, torch \
{record["torch"]}, seed {record["seed"]}; the judge {JUDGE_STEPS:,} steps, with noise of deviation {NOISE}.

## Test

The judge sees the wanted digit in {drawn["agreement"]:.1%} of {drawn["pictures"]:,} drawn pictures, whose Frechet \
distance to the real ones, in pixels, is {drawn["distance"]:.2f}. It names {judge["held_out"]["digits"]:.1%} of 360 \
pictures that it has not seen, {judge["held_out"]["inverted"]:.1%} when they are inverted; of all 1,797, \
{judge["all"]["digits"]:.1%} and {judge["all"]["inverted"]:.1%}.

## Limits

It draws digits of 8 x 8 pixels and nothing else: use it to see what fine-tuning does to what a model could draw before.

## Retrain

`python -m workbench.models.vision.train_digit_diffusion` trains, writes and measures.
"""


if __name__ == "__main__":
    main()
