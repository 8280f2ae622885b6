"""The cards of the gallery: every paper of the catalog and every dashboard of the folder, broken ones included."""

from dataclasses import dataclass, field
from pathlib import Path

from workbench import folders
from workbench.app.notebook_index import notebook_index
from workbench.gathered import gathered
from workbench.record import read, verdict_counts


@dataclass(frozen=True)
class Card:
    """What one card of the gallery shows."""

    kind: str
    key: str
    title: str
    family: str
    text: str
    byline: str = ""
    arxiv: str = ""
    state: str = ""
    problem: str = ""
    dashboards: tuple[tuple[str, str], ...] = ()
    notebook: bool = False
    verdicts: tuple[tuple[str, int], ...] = ()
    claims: int = 0
    words: str = field(default="", compare=False)


def gallery_cards(folder: Path) -> list[Card]:
    """Return the cards, dashboards first; what cannot be read becomes a card that says so."""
    notebooks = notebook_index(folder)
    dashboards = [notebook for notebook in notebooks if notebook.kind == "dashboards"]
    walkthroughs = {notebook.name.split("/")[-1] for notebook in notebooks if notebook.kind == "papers"}
    papers, broken = papers_or_problems()
    families = {key: paper.family for key, paper in papers.items()}
    cards = [
        Card(
            kind="dashboards",
            key=notebook.name,
            title=notebook.title,
            family=next((families[key] for key in notebook.papers if key in families), "general"),
            text=notebook.description,
        )
        for notebook in dashboards
    ]
    for key, paper in papers.items():
        links = tuple((notebook.name, notebook.title) for notebook in dashboards if key in notebook.papers)
        cards.append(_paper_card(paper, links, key in walkthroughs))
    cards += [
        Card("papers", key, key, "not loadable", "", problem=f"This paper cannot be loaded: {reason}")
        for key, reason in broken.items()
    ]
    return cards


def papers_or_problems() -> tuple[dict, dict[str, str]]:
    """Import every paper by itself; return the papers and, for those that fail, one line on why."""
    broken: dict[str, str] = {}
    return gathered("workbench.papers", "PAPER", file="entry", problems=broken), broken


def records_of(key: str) -> list[dict]:
    """Return the paper's published records; unreadable ones are left out."""
    records = []
    for file in sorted((folders.published() / key).glob("*.json")):
        try:
            records.append(read(key, file.stem))
        except (OSError, ValueError):
            continue
    return records


def _paper_card(paper, dashboards: tuple[tuple[str, str], ...], has_notebook: bool) -> Card:
    judged = [claim for record in records_of(paper.key) for claim in record["claims"]]
    return Card(
        kind="papers",
        key=paper.key,
        title=paper.title,
        family=paper.family,
        text=paper.summary,
        byline=f"{paper.authors}, {paper.year}",
        arxiv=paper.arxiv,
        state="" if paper.state == "complete" else paper.state,
        dashboards=dashboards,
        notebook=has_notebook,
        verdicts=tuple(verdict_counts(judged).items()),
        claims=sum(claim.whose == "paper" for claim in paper.claims),
        words=" ".join(claim.statement for claim in paper.claims),
    )
