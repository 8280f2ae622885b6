"""Train the digits' vision transformer: ``python -m workbench.models.vision.train_digit_vit`` (half a minute).

It writes the weights and the model card. AdamW with a rate of 0.002, weight decay 0.01, 30 passes over 1,000 pictures
in batches of 50, 50 steps of warm-up and a cosine schedule.
"""

import argparse
import hashlib
import json
import logging

import torch
from torch.nn import functional as F

from workbench.folders import WEIGHTS
from workbench.models.fine_tuning.training import cosine, train
from workbench.models.vision.digit_vit import FILE, DigitViT, accuracy, pictures

__all__ = ["CARD", "RECORD", "pretrain"]

LOG = logging.getLogger("train_digit_vit")
RECORD, CARD = WEIGHTS / "digit_vit.json", WEIGHTS / "digit_vit.md"
PASSES, BATCH, RATE, DECAY, WARM = 30, 50, 2e-3, 0.01, 50


def pretrain(seed=0, passes=PASSES, report=lambda fraction, step: None) -> DigitViT:
    """Return a model that was trained on the training pictures."""
    (x, y), _ = pictures()
    each = len(x) // BATCH
    steps = passes * each

    def batch_of(step):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 * seed + step // each))
        chosen = order[step % each * BATCH :][:BATCH]
        return x[chosen], y[chosen]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitViT()
    train(
        model, lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]), batch_of, steps=steps, rate=RATE,
        weight_decay=DECAY, schedule=cosine(WARM / max(steps, 1)), seed=seed, report=report,
    )  # fmt: skip
    return model.eval().requires_grad_(False)


def main():
    """Train, write the weights, and measure."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description="Train, write and measure the vision transformer of digits.")
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = pretrain(seed, report=lambda fraction, step: LOG.debug(step))
    sizes = {name: str(value) for name, value in vars(model.config).items()}
    save_file({name: t.half() for name, t in model.state_dict().items()}, str(FILE), metadata=sizes)
    record = {
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sha256": hashlib.sha256(FILE.read_bytes()).hexdigest(),
        "accuracy": {name: accuracy(model, data) for name, data in zip(("training", "test"), pictures(), strict=True)},
        "torch": torch.__version__,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    CARD.write_text(card(record), "utf-8")
    LOG.info("%s", record)


def card(record) -> str:
    """Return the model card that belongs to a record."""
    right = record["accuracy"]
    return f"""# Model card: digit_vit

Written by `workbench/models/vision/train_digit_vit.py` from `digit_vit.json`; do not edit.

A vision transformer of handwritten digits: {record["parameters"]:,} parameters, 16 patches of 2 x 2 pixels and a \
class token, width 64, 4 heads, 4 blocks with normalisation before each part, feed-forward 256, the mean of all \
tokens for the head; stored in float16 (SHA-256 `{record["sha256"][:16]}...`).

## Data and licences

The 1,797 digits of scikit-learn (Alpaydin and Kaynak 1998, UCI, Creative Commons Attribution 4.0): the first 1,000 of \
a fixed permutation to train on, the other 797 to test.

## Training

{PASSES} passes in batches of {BATCH}, AdamW, rate {RATE}, weight decay {DECAY}, {WARM} steps of warm-up and a cosine \
schedule, torch {record["torch"]}, seed {record["seed"]}.

## Test

{right["test"]:.1%} of the 797 test pictures are recognised, {right["training"]:.1%} of those that it was trained on.

## Limits

It knows pictures of 8 x 8 pixels and nothing else: use it to see what methods of fine-tuning do to a pre-trained model.

## Retrain

`python -m workbench.models.vision.train_digit_vit` trains, writes and measures.
"""


if __name__ == "__main__":
    main()
