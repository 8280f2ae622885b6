"""What the tests of papers share: one tiny run of every experiment, and judges' words at a tie."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from workbench.papers import get

SEED = 3


@dataclass(frozen=True)
class TinyRun:
    """An experiment's rows at size "tiny", and what it reported: (fraction, step) in the order told."""

    rows: list
    told: list


@pytest.fixture(scope="session")
def tiny_run():
    """Return ``tiny_run(paper, experiment)`` -> `TinyRun`; each is run once for all tests. Tests change no row."""
    return cache(run_tiny)


@pytest.fixture(scope="session")
def run_again():
    """Return ``run_again(paper, experiment)``, which runs what `tiny_run` ran once more."""
    return run_tiny


def run_tiny(paper, experiment):
    """Run an experiment at size "tiny" with one thread of torch and BLAS: a second one would wait for the first."""
    told, before = [], torch.get_num_threads()
    run = next(each.run for each in get(paper).experiments if each.key == experiment)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            rows = run(size="tiny", seed=SEED, report=lambda fraction, step: told.append((fraction, step)))
        return TinyRun(rows, told)
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def words_at_a_tie():
    """Return ``words(judge, rows)``: all verdicts on rows as they are, and with their last digits changed.

    Every value that is no count is moved by 1e-12 of itself, up or down by chance, eight times over.
    """

    def words(judge, rows):
        rng = np.random.default_rng(1)

        def moved(row):
            if isinstance(row["value"], int):
                return row
            return row | {"value": row["value"] * (1 + rng.choice((-1e-12, 1e-12)))}

        return {judge(found)[1] for found in (rows, *([moved(row) for row in rows] for _ in range(8)))}

    return words
