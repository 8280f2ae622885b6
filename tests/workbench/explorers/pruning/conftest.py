"""A small model in place of the explorer's own, so that every method can be run on it in no time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from widgets.figures.pruning import Axis
from workbench.explorers.pruning import explorer, frontier
from workbench.explorers.pruning import source as module
from workbench.explorers.pruning.source import PruningSource


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32)) for _ in range(2))
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def batches(seed):
    mixing = torch.randn(32, 32, generator=torch.Generator().manual_seed(9)) * torch.logspace(-1, 1, 32)
    return [torch.randn(8, 16, 32, generator=torch.Generator().manual_seed(seed + i)) @ mixing for i in range(3)]


MODEL = Small().eval().requires_grad_(False)


def judge(model):
    with torch.no_grad():
        now, dense = (torch.cat([each(batch) for batch in batches(200)]).flatten(0, 1) for each in (model, MODEL))
    return {"cosine": float(F.cosine_similarity(now, dense).mean())}


SOURCE = PruningSource(
    key="small",
    title="A small model",
    load=lambda: MODEL,
    calibration=lambda: batches(0),
    evaluation=lambda: batches(100),
    loss=lambda model, batch: model(batch).square().mean(),
    training=lambda steps, seed: (batches(300 + 10 * seed) * steps)[:steps],
    distil=lambda model, dense, batch: F.mse_loss(model(batch), dense(batch)),
    judge=judge,
    qualities=(Axis(key="cosine", label="cosine of outputs", unit="cosine", better="higher", kind="measured"),),
)


@pytest.fixture
def small(monkeypatch):
    """Make the small model the only source."""
    found = {"small": SOURCE}
    for place in (module, explorer):
        monkeypatch.setattr(place, "sources", lambda: found)
    monkeypatch.setattr(explorer, "FIRST_MODEL", "small")
    caches = (frontier.statistics_of, frontier._gradients, frontier.evaluation_grams, frontier._dense_quality,
              explorer.view_class)  # fmt: skip
    for cached in caches:
        cached.cache_clear()
    explorer._known.clear()
    yield SOURCE
    explorer._known.clear()
    for cached in caches:
        cached.cache_clear()
