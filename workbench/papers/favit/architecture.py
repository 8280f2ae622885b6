"""The published sizes of FaViT, built and counted."""

import torch

from workbench.data.images import patches, picture
from workbench.models.attention.favit import SIZES, fasa_multiply_adds, favit
from workbench.paper import row

PUBLISHED = tuple(SIZES)
BUILT = {"tiny": (PUBLISHED[:1], 128), "small": (PUBLISHED[:2], 224), "full": (PUBLISHED, 224)}  # photograph's side


def architecture(size, seed, report):
    """Build the published models, count them, and show a photograph to the smallest."""
    (models, side), rows = BUILT[size], []
    for number, name in enumerate(models):
        report(number / len(models), f"FaViT-{name.upper()}")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = favit(name).eval()
        label = {"model": f"FaViT-{name.upper()}"}
        rows.append(row("parameters", sum(p.numel() for p in model.parameters()), "parameters", "counted", **label))
        rows.append(row("multiply-adds at 224 x 224", fasa_multiply_adds(name), "multiply-adds", "counted", **label))
        if number == 0:
            image = patches(picture("astronaut"), side).mean(2)
            with torch.no_grad():
                logits = model(torch.from_numpy(image).permute(2, 0, 1)[None])
            finite = int(torch.isfinite(logits).sum())
            rows.append(row("finite logits for a photograph", finite, "logits", "counted", image=side, **label))
    return rows
