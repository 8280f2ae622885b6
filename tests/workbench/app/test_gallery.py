"""A paper's card counts verdicts on the paper's own claims, and the page has a colour for each word."""

from dataclasses import replace
from pathlib import Path

from workbench.app import gallery
from workbench.record import VERDICTS


def test_a_card_counts_the_papers_own_claims(toy, monkeypatch):
    judged = [{"whose": "paper", "verdict": "undecided"}, {"whose": "paper", "verdict": "fitted"}]
    judged += [{"whose": "paper", "verdict": "fitted"}, {"whose": "workbench", "verdict": "reproduced"}]
    monkeypatch.setattr(gallery, "records_of", lambda key: [{"claims": judged[:2]}, {"claims": judged[2:]}])
    paper = replace(toy, claims=(toy.claims[0], replace(toy.claims[1], whose="workbench")))
    card = gallery._paper_card(paper, (), False)
    assert card.verdicts == (("fitted", 2), ("undecided", 1))
    assert card.claims == 1


def test_every_verdict_has_a_colour():
    style = (Path(gallery.__file__).parent / "voila" / "static" / "workbench.css").read_text()
    for word in VERDICTS:
        assert f".verdicts .{word.replace(' ', '-')}" in style, word
