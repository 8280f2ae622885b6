"""The pieces of a long run: kept when made, used again only when asked for, gone with the record."""

import json
from dataclasses import replace

import pytest

from workbench import folders, papers
from workbench.experiments import pieces, runner
from workbench.paper import row


class Long:
    """An experiment of three pieces that stops at one of them, and says which it made."""

    def __init__(self):
        self.made, self.stops_at = [], None

    def run(self, size, seed, report, keep):
        def piece(number):
            if number == self.stops_at:
                raise KeyboardInterrupt
            self.made.append(number)
            return [row("speed", 5 + number / 3, "products per second", "measured", net=number)]

        rows = []
        for number in range(3):
            rows += keep({"net": f"net, {number}", "seed": seed}, lambda number=number: piece(number))
        return rows


@pytest.fixture
def long(toy, places, monkeypatch):
    made = Long()
    experiments = (replace(toy.experiments[0], run=made.run), toy.experiments[1])
    monkeypatch.setattr(papers, "catalog", lambda: {"toy": replace(toy, experiments=experiments)})
    return made


def interrupted(long, at):
    long.stops_at = at
    with pytest.raises(KeyboardInterrupt):
        runner.run("toy", only=["speeds"])
    long.stops_at = None
    return sorted((folders.home() / "results/toy/speeds-pieces").glob("*.json"))


def test_an_interrupted_run_loses_one_piece_and_goes_on_when_asked(long):
    kept = interrupted(long, at=2)
    assert [path.name for path in kept] == ["net-0-1.json", "net-1-1.json"] and long.made == [0, 1]
    first = json.loads(kept[0].read_text())
    assert first["rows"] == [row("speed", 5.0, "products per second", "measured", net=0)]
    assert first["of"]["labels"] == {"net": "net, 0", "seed": 1} and first["of"]["versions"]["numpy"]
    kept[0].write_text(json.dumps(first | {"wall_s": 1000.0}))

    entry = runner.run("toy", only=["speeds"], resume=True)[0]
    assert long.made == [0, 1, 2]
    assert [r["value"] for r in entry["rows"]] == [5.0, 5.33333, 5.66667]
    assert 1000 <= entry["wall_s"] < 1100  # what the kept pieces took counts
    assert not kept[0].parent.exists()


def test_pieces_are_never_used_unasked(long):
    kept = interrupted(long, at=1)
    with pytest.raises(ValueError, match=r"toy/speeds left 1 pieces in .*speeds-pieces; add --resume .* or delete"):
        runner.run("toy", only=["speeds"])
    assert kept[0].exists() and long.made == [0]
    assert [entry["experiment"] for entry in runner.run("toy", only=["counts"])] == ["counts"]


def test_pieces_outlive_a_record_that_could_not_be_written(long):
    def full(entry):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        runner.run("toy", only=["speeds"], done=full)
    runner.run("toy", only=["speeds"], resume=True)
    assert long.made == [0, 1, 2]


def test_a_piece_of_another_seed_or_version_is_refused(long):
    kept = interrupted(long, at=1)
    piece = json.loads(kept[0].read_text())
    for other in ({"seed": 7}, {"cpu": "another"}, {"versions": {}}, {"labels": {}}):
        kept[0].write_text(json.dumps(piece | {"of": piece["of"] | other}))
        with pytest.raises(ValueError, match=f"was made with other {next(iter(other))}; delete it"):
            runner.run("toy", only=["speeds"], resume=True)


def test_smaller_runs_keep_nothing(long):
    long.stops_at = 2
    with pytest.raises(KeyboardInterrupt):
        runner.run("toy", size="small", only=["speeds"])
    assert not list(folders.home().rglob("*.json"))
    pieces.require_none("toy", "speeds")
