"""Every paper of the catalog keeps the contract: files by its key, experiments that run, claims that have one."""

import inspect
import re
from pathlib import Path

import pytest

from workbench import record
from workbench.experiments import runner
from workbench.paper import Experiment, Knob
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


def test_knobs_reach_sample_and_run(paper):
    assert all(isinstance(knob, Knob) for knob in paper.knobs)
    assert len({knob.key for knob in paper.knobs}) == len(paper.knobs)


def test_view_opens_from_its_own_link(paper):
    first, second = paper.view(), paper.view()
    try:
        for knob in paper.knobs:
            if knob.scale == "linear" and isinstance(knob.default, int) and not isinstance(knob.default, bool):
                setattr(first, knob.key, knob.low)
        assert first.query, "no knob of the paper is a knob of its view"
        second.load_query(first.query)
        assert second.state == first.state
        first.wait()
        second.wait()
        assert not first.error and not second.error
        assert first.alt_text(first.scene) == second.alt_text(second.scene)
    finally:
        first.close()
        second.close()


def test_tiny_experiments_run_and_make_records(paper):
    steps = []
    records = runner.run(paper.key, size="tiny", seed=3, report=lambda fraction, step: steps.append(fraction))
    assert [entry["experiment"] for entry in records] == [experiment.key for experiment in paper.experiments]
    assert all(entry["rows"] for entry in records)
    assert steps == sorted(steps) and steps[-1] == 1.0
    judged = {claim["key"] for entry in records for claim in entry["claims"]}
    assert judged == {claim.key for claim in paper.claims}


def test_equal_seeds_give_equal_rows(paper):
    for experiment in paper.experiments:
        if experiment.kind != "timing":
            assert experiment.run(size="tiny", seed=3) == experiment.run(size="tiny", seed=3)


def test_published_records_are_whole(paper):
    for experiment in paper.experiments:
        entry = record.read(paper.key, experiment.key)
        record.validate(entry)
        assert record.is_published(entry)


def test_verdicts_on_record_are_those_of_the_judges(paper):
    for experiment in paper.experiments:
        entry = record.read(paper.key, experiment.key)
        claims = [claim for claim in paper.claims if claim.experiment == experiment.key]
        assert entry["claims"] == [runner.judge(claim, entry["rows"]) for claim in claims]
