"""A paper made for tests, folders that tests may write to, and torch with one thread."""

import pytest

from workbench import folders, papers
from workbench.paper import Claim, Experiment, Paper


def _rows(size, seed, matrix=None, report=lambda fraction, step: None):
    report(0.5, "half")
    value = {"tiny": 1.0, "small": 2.0, "full": 4.0}[size] + seed
    return [{"quantity": "speed", "value": value, "unit": "products per second", "kind": "measured", "version": "V1"}]


def _needs_own_input(size, seed, matrix=None, report=lambda fraction, step: None):
    if matrix:
        raise ValueError("takes no other matrix")
    return [{"quantity": "count", "value": 3, "unit": "entries", "kind": "counted"}]


def _judge_full(rows):
    fast = next(row for row in rows if row["value"] >= 5)
    return f"{fast['value']:.0f} m/s", "reproduced"


def make_paper():
    return Paper(
        key="toy",
        title="Toys | and how they run",
        authors="A. Maker",
        year=2020,
        arxiv="",
        family="toys",
        summary="",
        state="complete",
        claims=(
            Claim(
                key="fast",
                statement="It runs.",
                where="Table 1",
                paper_value="5 m/s",
                tag="published",
                experiment="speeds",
                judge=_judge_full,
            ),
            Claim(
                key="counts",
                statement="There are three.",
                where="Section 2",
                paper_value="3",
                tag="from memory",
                experiment="counts",
                judge=lambda r: ("3", "partly"),
            ),
        ),
        view=lambda: None,
        experiments=(
            Experiment(key="speeds", title="How fast it runs", kind="timing", run=_rows),
            Experiment(key="counts", title="How many there are", kind="accuracy", run=_needs_own_input),
        ),
    )


@pytest.fixture
def toy(monkeypatch):
    paper = make_paper()
    monkeypatch.setattr(papers, "catalog", lambda: {"toy": paper})
    return paper


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Send published records and the user's own to a temporary folder."""
    published = tmp_path / "published"
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(folders, "published", lambda: published)
    monkeypatch.setattr(folders, "shipped", lambda: tmp_path / "shipped")
    monkeypatch.setattr(folders, "checkout", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def one_thread():
    """Let torch use one thread: with tiny operators, a second one on a busy machine mostly waits for the first."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
