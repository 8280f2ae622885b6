r"""A small diffusion model of handwritten digits, shipped, and how its pictures are judged.

.. math:: x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad
          x_{t-1} = \frac{1}{\sqrt{\alpha_t}} \Bigl(x_t - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}}
          \epsilon_\theta(x_t, t, c)\Bigr) + \sqrt{\beta_t}\, z

It learns the noise in a picture of a digit c, and draws by taking noise away in 100 steps. A classifier that knows the
digits and their inverted form says whether the drawn digit is the wanted one, and the Frechet distance how far the
pixels of many pictures are from those of real ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from kernels.check import as_int, as_number, check_choice
from workbench.data import images
from workbench.folders import WEIGHTS

__all__ = ["FILE", "STYLES", "DiffusionConfig", "DigitDiffusion", "DigitJudge", "diffusion_loss", "draw",
           "frechet_distance", "load", "load_judge", "pictures"]  # fmt: skip

FILE = WEIGHTS / "digit_diffusion.safetensors"
PIXELS, CLASSES = 64, 10
STYLES = {"digits": 1.0, "inverted": -1.0}  # what the grey levels are multiplied with
JUDGE = "judge."  # what the names of the judge's weights begin with


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Sizes.

    Parameters
    ----------
    steps : of noise.
    embedding : width of what stands for a step and for a class.
    width, layers : of the residual layers.
    """

    steps: int = 100
    embedding: int = 64
    width: int = 256
    layers: int = 3


class DigitDiffusion(nn.Module):
    """Picture, step and class side by side, residual layers, and the noise.

    Parameters
    ----------
    config : sizes.

    Source
    ------
    Ho, Jain and Abbeel 2020, "Denoising diffusion probabilistic models", with a perceptron in place of the U-Net and
    the variances beta_t of their Section 3.2.
    """

    def __init__(self, config: DiffusionConfig | None = None):
        super().__init__()
        self.config = config = config or DiffusionConfig()
        self.time = nn.Embedding(config.steps, config.embedding)
        self.digit = nn.Embedding(CLASSES, config.embedding)
        self.inputs = nn.Linear(PIXELS + 2 * config.embedding, config.width)
        self.layers = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.layers))
        self.outputs = nn.Linear(config.width, PIXELS)

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the noise in pictures (b, 64) after steps t (b,), from 0 on, of digits (b,): (b, 64)."""
        h = F.silu(self.inputs(torch.cat([x, self.time(t), self.digit(labels)], -1)))
        for layer in self.layers:
            h = h + F.silu(layer(h))
        return self.outputs(h)


class DigitJudge(nn.Module):
    """Classifies digits, black on white or white on black."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(PIXELS, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, CLASSES)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map pictures (b, 64) to logits (b, 10)."""
        return self.net(x)


@cache
def _schedule(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return beta_t and the running product of 1 - beta_t, float32 (steps,)."""
    betas = torch.linspace(1e-3, 0.12, steps, dtype=torch.float64)
    return betas.float(), torch.cumprod(1 - betas, 0).float()


def diffusion_loss(model: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the mean squared error of the noise in pictures (b, 64) with labels (b,), at steps drawn by PyTorch.

    Source
    ------
    Ho, Jain and Abbeel 2020, Eq. 14.
    """
    x, labels = batch
    t, noise = torch.randint(model.config.steps, (len(x),)), torch.randn_like(x)
    kept = _schedule(model.config.steps)[1][t, None]  # (b, 1)
    return F.mse_loss(model(kept.sqrt() * x + (1 - kept).sqrt() * noise, t, labels), noise)


@torch.no_grad()
def draw(model: Any, labels: torch.Tensor, *, seed: int = 0) -> torch.Tensor:
    """Draw a picture of each wanted digit.

    Parameters
    ----------
    model : a `DigitDiffusion`, or one made from it.
    labels : int64 (b,), from 0 to 9.
    seed : of the noise; two models with one seed get the same noise.

    Returns
    -------
    float32 (b, 64), grey levels of about -1 to 1.

    Source
    ------
    Ho, Jain and Abbeel 2020, Algorithm 2.
    """
    if labels.ndim != 1 or labels.dtype != torch.int64 or not ((labels >= 0) & (labels < CLASSES)).all():
        raise ValueError(f"draw: labels must be int64 (b,) from 0 to 9, got {labels.dtype} {tuple(labels.shape)}")
    chance = torch.Generator().manual_seed(as_int(seed, function="draw", name="seed", low=0))
    steps = model.config.steps
    betas, kept = _schedule(steps)
    x = torch.randn(len(labels), PIXELS, generator=chance)
    for t in range(steps - 1, -1, -1):
        noise = model(x, torch.full_like(labels, t), labels)
        x = (x - betas[t] / (1 - kept[t]).sqrt() * noise) / (1 - betas[t]).sqrt()
        if t:
            x += betas[t].sqrt() * torch.randn(x.shape, generator=chance)
    return x


def frechet_distance(a, b, *, ridge: float = 1e-4) -> float:
    r"""Return the Frechet distance of two sets of vectors, each taken for normally distributed.

    .. math:: |\mu_a - \mu_b|^2 + \mathrm{tr}\,(S_a + S_b - 2 (S_a^{1/2} S_b S_a^{1/2})^{1/2})

    Parameters
    ----------
    a, b : (n, d) tensors or arrays; at least two vectors each. For pictures, d are pixels.
    ridge : added to the diagonals of both covariances.

    Raises
    ------
    ValueError : shapes that do not fit, or numbers that are not finite.

    Source
    ------
    Dowson and Landau 1982; Heusel et al. 2017 use it on features of a network (FID).
    """
    name = "frechet_distance"
    ridge = as_number(ridge, function=name, name="ridge", low=0)
    sets = [np.asarray(x, np.float64) for x in (a, b)]
    if any(x.ndim != 2 or len(x) < 2 for x in sets) or sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(f"{name}: a and b must be (n, d) with n from 2 on, got {sets[0].shape} and {sets[1].shape}")
    if not all(np.isfinite(x).all() for x in sets):
        raise ValueError(f"{name}: a and b must be finite; the model that drew them may have diverged")
    means = [x.mean(0) for x in sets]
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) + ridge * np.eye(x.shape[1]) for x in sets)
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * cross)


# What ships and what it was trained on --------------------------------------------------------------------------------
@cache
def _stored(path: Path) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    from safetensors import safe_open

    if not Path(path).exists():
        raise FileNotFoundError(
            f"digit_diffusion.load: no {path}; train one with python -m workbench.models.vision.train_digit_diffusion"
        )
    with safe_open(str(path), framework="pt") as stored:
        sizes = {name: int(value) for name, value in stored.metadata().items()}
        return sizes, {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118


@cache
def load(path: Path = FILE) -> DigitDiffusion:
    """Return the pre-trained model, frozen, shared by all callers.

    Raises
    ------
    FileNotFoundError : the weights are missing: ``python -m workbench.models.vision.train_digit_diffusion``.
    """
    sizes, weights = _stored(path)
    model = DigitDiffusion(DiffusionConfig(**sizes))
    model.load_state_dict({name: t for name, t in weights.items() if not name.startswith(JUDGE)})
    return model.eval().requires_grad_(False)


@cache
def load_judge(path: Path = FILE) -> DigitJudge:
    """Return the classifier that judges drawn digits, frozen, shared by all callers; errors as of `load`."""
    judge = DigitJudge()
    weights = _stored(path)[1]
    judge.load_state_dict({n.removeprefix(JUDGE): t for n, t in weights.items() if n.startswith(JUDGE)})
    return judge.eval().requires_grad_(False)


def pictures(style: str = "digits", digits: Iterable[int] = range(CLASSES)) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all real pictures of some digits: grey levels float32 (n, 64) from -1 to 1, and labels int64 (n,).

    Parameters
    ----------
    style : one of `STYLES`: "digits" as they are, or "inverted".
    digits : which ones; all 1,797 pictures unless given, 901 for 0 to 4.
    """
    check_choice(style, STYLES, function="pictures", name="style")
    both = images.digits()
    grey, labels = (torch.from_numpy(np.concatenate([part[i] for part in both])) for i in (0, 1))
    wanted = torch.isin(labels, torch.tensor(list(digits)))
    return STYLES[style] * (2 * grey[wanted].view(-1, PIXELS) - 1), labels[wanted]
