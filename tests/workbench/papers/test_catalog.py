"""Every paper of the catalog keeps the contract: files by its key, experiments that run, claims that have one."""

import inspect
import re
from dataclasses import replace
from pathlib import Path

import pytest

from workbench import papers, record
from workbench.experiments import runner
from workbench.paper import Experiment
from workbench.papers import catalog, get

ROOT = Path(__file__).resolve().parents[3]
PAPERS = catalog()


@pytest.fixture(params=PAPERS)
def paper(request):
    return PAPERS[request.param]


def test_there_are_papers():
    assert "smash" in PAPERS


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(KeyError, match="smash"):
        get("smahs")


def test_notebook_and_twin(paper):
    assert (ROOT / "notebooks" / paper.notebook).is_file()
    assert (ROOT / "notebooks" / "text" / paper.notebook).with_suffix(".py").is_file()


def test_notebook_has_the_eight_sections(paper):
    text = (ROOT / "notebooks" / "text" / paper.notebook).with_suffix(".py").read_text()
    assert [int(n) for n in re.findall(r"^# ## (\d)\. ", text, flags=re.M)] == list(range(1, 9))


def test_card(paper):
    sentences = re.findall(r"[^.!?]+[.!?](?=\s|$)", re.sub(r"(\d)\.(\d)", r"\1\2", paper.summary))
    assert len(sentences) == 3, f"{paper.key}: the summary has {len(sentences)} sentences"
    assert paper.title and paper.authors and paper.family and paper.state
    assert re.fullmatch(r"\d{4}\.\d{4,5}", paper.arxiv) and 1990 <= paper.year <= 2100


def test_claims_have_experiments(paper):
    keys = [claim.key for claim in paper.claims]
    assert paper.claims and len(set(keys)) == len(keys)
    experiments = {experiment.key for experiment in paper.experiments}
    for claim in paper.claims:
        assert claim.experiment in experiments, f"{claim.key}: no experiment {claim.experiment!r}"
        assert claim.tag in ("published", "from memory")
        assert claim.statement.endswith(".") and claim.where and claim.paper_value


def test_experiments_keep_the_signature(paper):
    keys = [experiment.key for experiment in paper.experiments]
    assert keys and len(set(keys)) == len(keys)
    for experiment in paper.experiments:
        assert isinstance(experiment, Experiment) and experiment.kind in ("accuracy", "timing", "modelled")
        assert {"size", "seed", "matrix", "report"} <= set(inspect.signature(experiment.run).parameters)


def test_view_opens_from_its_own_link(paper):
    first = paper.view().wait()
    second = paper.view(query=first.query).wait()
    try:
        assert not first.error and not second.error
        assert second.state == first.state
        assert first.alt_text(first.scene) == second.alt_text(second.scene)
    finally:
        first.close()
        second.close()


def test_tiny_runs_make_records(paper, tiny_run, monkeypatch):
    """The runner is handed rows and reports of the shared runs in place of running again."""

    def replayed(experiment):
        shared = tiny_run(paper.key, experiment.key)

        def run(size, seed, report):
            for fraction, step in shared.told:
                report(fraction, step)
            return shared.rows

        return replace(experiment, run=run)

    steps = []
    again = replace(paper, experiments=tuple(map(replayed, paper.experiments)))
    monkeypatch.setattr(papers, "get", lambda key: again)
    records = runner.run(paper.key, size="tiny", seed=3, report=lambda fraction, step: steps.append(fraction))
    assert [entry["experiment"] for entry in records] == [experiment.key for experiment in paper.experiments]
    assert all(entry["rows"] for entry in records)
    assert steps == sorted(steps) and steps[-1] == 1.0
    judged = {claim["key"] for entry in records for claim in entry["claims"]}
    assert judged == {claim.key for claim in paper.claims}


def test_reports_rise_from_none_to_all_and_say_what_is_done(paper, tiny_run):
    for experiment in paper.experiments:
        told = tiny_run(paper.key, experiment.key).told
        fractions = [fraction for fraction, _ in told]
        assert fractions and fractions == sorted(fractions), f"{experiment.key}: {fractions}"
        assert fractions[0] >= 0 and fractions[-1] <= 1, f"{experiment.key}: {fractions}"
        assert all(step for _, step in told), experiment.key


def test_equal_seeds_give_equal_rows(paper, tiny_run, run_again):
    for experiment in paper.experiments:
        if experiment.kind != "timing":
            assert run_again(paper.key, experiment.key).rows == tiny_run(paper.key, experiment.key).rows


def test_published_records_are_whole(paper):
    for experiment in paper.experiments:
        entry = record.read(paper.key, experiment.key)
        record.validate(entry)
        assert record.publishable(entry)


def test_verdicts_on_record_are_those_of_the_judges(paper):
    for experiment in paper.experiments:
        entry = record.read(paper.key, experiment.key)
        claims = [claim for claim in paper.claims if claim.experiment == experiment.key]
        assert entry["claims"] == [runner.judge(claim, entry["rows"]) for claim in claims]
