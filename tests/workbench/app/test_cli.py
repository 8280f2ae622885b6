import errno
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import scipy.io
import scipy.sparse as sp
from typer.testing import CliRunner

from workbench import folders, papers, record
from workbench.app import cli
from workbench.bench import registry
from workbench.bench.timing import Bench, Case, CaseSpec, Contender
from workbench.paper import Claim, Experiment, Paper, row

ROOT = Path(__file__).resolve().parents[3]


def call(*arguments):
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    return stop.value.code


def one_sentence(capsys, *words):
    """Assert that stderr holds one line that holds these words."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("workbench: "), lines
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in lines[0]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(folders, "published", lambda: tmp_path / "published")
    monkeypatch.setattr(folders, "shipped", lambda: tmp_path / "shipped")
    monkeypatch.setattr(folders, "checkout", lambda: tmp_path)
    monkeypatch.setattr(folders, "notebooks", lambda: ROOT / "notebooks")
    return tmp_path


def _rows(size, seed, matrix=None, report=lambda fraction, step: None):
    if seed == 13:
        raise RuntimeError("the thirteenth seed")
    report(0.5, "half")
    labels = [("V1", 1.5), ("V2", 12345.0)]
    return [row("speed", value, "products per second", "modelled", version=version) for version, value in labels]


@pytest.fixture
def toy(monkeypatch):
    claim = Claim(
        key="fast",
        statement="It runs fast.",
        where="Table 1",
        paper_value="2 m/s",
        tag="published",
        experiment="speeds",
        judge=lambda rows: ("1.5", "partly"),
    )
    paper = Paper(
        key="toy",
        title="Toys",
        authors="A. Maker",
        year=2020,
        arxiv="",
        family="toys",
        summary="",
        state="complete",
        claims=(claim,),
        view=lambda: None,
        experiments=(Experiment(key="speeds", title="Speeds", kind="modelled", run=_rows),),
    )
    monkeypatch.setattr(papers, "catalog", lambda: {"toy": paper})
    return paper


def test_an_interrupted_run_is_named_and_gone_on_with(toy, places, capsys):
    piece = places / "home/results/toy/speeds-pieces/net-1.json"
    piece.parent.mkdir(parents=True)
    piece.write_text("{}")
    assert call("run", "toy", "--size", "full") != 0
    one_sentence(capsys, "an interrupted run of toy/speeds left 1 pieces", "--resume")
    assert call("run", "toy", "--size", "full", "--resume") == 0 and not piece.exists()


def test_papers_are_listed_with_the_verdicts_of_their_records(toy, capsys):
    assert call("run", "toy", "--publish") == 0
    capsys.readouterr()
    assert call("papers") == 0
    out = capsys.readouterr().out
    for word in ("toy", "Toys (A. Maker, 2020)", "toys", "complete", "none yet", "1: 1 partly"):
        assert word in out


def test_run_prints_rows_and_verdicts_and_writes_record_and_ledger(toy, places, capsys):
    assert call("run", "toy", "--publish", "--json", str(places / "copy.json")) == 0
    out = capsys.readouterr().out
    for word in ("Speeds", "V1", "12,345", "modelled", "It runs fast.", "2 m/s (published)", "partly"):
        assert word in out
    written = record.read("toy", "speeds")
    assert json.loads((places / "copy.json").read_text()) == [written]
    page = places / "published" / "toy" / "README.md"
    assert "It runs fast." in page.read_text() and "1 partly" in (places / "RESULTS.md").read_text()
    assert call("results", "--check") == 0
    for path in (places / "RESULTS.md", page):
        path.write_text("typed by hand")
        capsys.readouterr()
        assert call("results", "--check") == 1
        one_sentence(capsys, "out of date", str(path), "workbench results")
        assert call("results") == 0 and call("results", "--check") == 0


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_a_run_publishes_nothing_unless_asked_to(toy, places, capsys, size):
    assert call("run", "toy", "--size", size) == 0
    assert not (places / "published").exists() and not (places / "RESULTS.md").exists()
    assert (places / "home" / "results" / "toy" / f"speeds-{size}.json").is_file()


def test_run_on_a_matrix_of_ones_own_judges_no_claim(toy, places, capsys):
    path = places / "own.mtx"
    scipy.io.mmwrite(path, sp.csr_array([[1.0]]))
    assert call("run", "toy", "--matrix", str(path)) == 0
    out = capsys.readouterr().out
    assert "not judged on another matrix" in out and "It runs fast." not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "toi"], ["no paper 'toi'", "did you mean 'toy'"]),
        (["run", "toy", "--size", "huge"], ["--size", "huge"]),
        (["run", "toy", "--seed", "-1"], ["--seed"]),
        (["run", "toy", "--size", "tiny", "--publish"], ["can be published", "--publish"]),
        (["run", "toy", "--only", "speed"], ["toy has the experiments speeds", "'speed'"]),
        (["run", "toy", "--matrix", "absent.mtx"], ["absent.mtx", "no such file"]),
        (["run", "toy", "--matrix", "."], ["is a folder"]),
        (["run", "toy", "--json", "absent/there.json"], ["there is no folder"]),
        (["run", "toy", "--json", "."], ["is a folder"]),
        (["run"], ["key"]),
        (["frob"], ["frob"]),
        (["run", "toy", "--frob"], ["--frob"]),
        (["bench", "spgem"], ["did you mean 'spgemm'"]),
        (["bench", "spgemm", "--case", "zzz"], ["none of 42 cases matches 'zzz'"]),
        (["bench", "spgemm", "--rounds", "3"], ["--rounds"]),
        (["bench", "spgemm", "--record", "--quick"], ["--record publishes the whole suite"]),
        (["copy", "nothing"], ["no notebook 'nothing'"]),
        (["copy", "start_here", "--to", "absent"], ["no folder absent"]),
        (["data", "fetch", "thing"], ["Group/name"]),
        (["data", "fetch", "karate"], ["nothing to download"]),
    ],
)
def test_what_the_user_can_put_right_is_one_sentence_and_code_2(toy, capsys, arguments, words):
    assert call(*arguments) == 2
    one_sentence(capsys, *words)


def test_a_malformed_matrix_is_one_sentence_and_code_2(toy, places, capsys):
    path = places / "bad.mtx"
    path.write_text("%%MatrixMarket matrix coordinate complex general\n1 1 0\n")
    assert call("run", "toy", "--matrix", str(path)) == 2
    one_sentence(capsys, "bad.mtx: complex matrices are not multiplied here")


def test_a_failure_is_one_sentence_and_code_1_and_debug_shows_where(toy, capsys):
    assert call("run", "toy", "--seed", "13") == 1
    one_sentence(capsys, "the thirteenth seed", "--debug")
    assert call("run", "toy", "--seed", "13", "--debug") == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "in _rows" in shown and shown.rstrip().endswith("the thirteenth seed")


def test_ctrl_c_is_no_traceback(toy, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.experiments.runner.run", stopped)
    assert call("run", "toy") == 130
    one_sentence(capsys, "stopped")


def test_a_full_disk_is_one_sentence_and_code_1(toy, capsys, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert call("run", "toy") == 1
    one_sentence(capsys, "speeds-full.json", "No space left on device", "WORKBENCH_HOME")


def test_an_unwritable_results_folder_is_told_before_the_work(toy, places, capsys, monkeypatch):
    monkeypatch.setattr("workbench.experiments.runner.run", lambda *_, **__: pytest.fail("the work was done"))
    (places / "published").write_text("in the way")
    assert call("run", "toy", "--publish") == 1
    one_sentence(capsys, "cannot write", "published")


def make_bench(ours):
    def check(name, result):
        if result != 42:
            raise ValueError(f"got {result}")

    case = Case(10.0, "flop", (Contender("ours", lambda: ours, 1, ours=True),), check)
    specs = [CaseSpec("one", "all", lambda: case)]
    return Bench("toss", "Tossing", (), lambda quick, threads, loaded: specs, lambda threads, loaded: None)


def test_bench_writes_to_the_users_folder_and_publishes_only_when_asked(places, capsys, monkeypatch):
    monkeypatch.setattr(registry, "benches", lambda: {"toss": make_bench(42)})
    assert call("bench", "toss", "--threads", "1") == 0
    assert "Tossing (measured, 1 threads, median of 7)" in capsys.readouterr().out
    assert json.loads((places / "home" / "results" / "bench" / "toss.json").read_text())["cases"][0]["name"] == "one"
    assert not (places / "published").exists()
    assert call("bench", "toss", "--record", "--json", str(places / "b.json")) == 0
    assert (places / "published" / "bench" / "toss.json").read_text() == (places / "b.json").read_text()
    assert "toss" in (places / "RESULTS.md").read_text()
    assert "toss" in (places / "published" / "bench" / "README.md").read_text()


def test_bench_fails_when_our_result_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(registry, "benches", lambda: {"toss": make_bench(41)})
    assert call("bench", "toss") == 1
    one_sentence(capsys, "our results are wrong")


class Refused(RuntimeError):
    pass


@pytest.fixture
def servers(monkeypatch):
    """Stand-ins for the two servers, whose imports take seconds; the list of what they were asked."""
    import workbench.app

    seen = []

    def ask(**options):
        seen.append(options)
        if options["port"] == 1:
            raise Refused("port 1 is not for us")

    for name in ("serve", "lab"):
        stand_in = types.SimpleNamespace(ServeError=Refused, **{name: ask})
        monkeypatch.setitem(sys.modules, f"workbench.app.{name}", stand_in)
        monkeypatch.setattr(workbench.app, name, stand_in, raising=False)
    return seen


def test_serve_and_lab_pass_on_what_was_asked(servers):
    assert call("serve", "--host", "0.0.0.0", "--port", "0", "--token", "t", "--no-browser", "--class", "30") == 0
    assert call("lab", "--headless", "--port", "0") == 0
    wanted = {"host": "0.0.0.0", "port": 0, "token": "t", "open_browser": False, "class_size": 30, "force": False}
    assert wanted.items() <= servers[0].items()
    assert {"headless": True, "port": 0}.items() <= servers[1].items()


@pytest.mark.parametrize("command", ["serve", "lab"])
def test_a_server_that_cannot_start_is_one_sentence(servers, capsys, command):
    assert call(command, "--port", "1") == 2
    one_sentence(capsys, "port 1 is not for us")


@pytest.mark.slow
def test_the_servers_take_what_the_command_line_gives(servers):
    call("serve")
    call("lab")
    code = "import inspect, json; from workbench.app.serve import serve; from workbench.app.lab import lab; "
    code += "print(json.dumps([list(inspect.signature(f).parameters) for f in (serve, lab)]))"
    accepted = json.loads(python("-c", code).stdout)
    for given, names in zip(servers, accepted, strict=True):
        assert set(given) <= set(names)


def test_data_list_names_every_matrix(capsys):
    from workbench.data.matrices import MATRICES
    from workbench.data.suitesparse import registry as suggestions

    assert call("data", "list") == 0
    out = capsys.readouterr().out
    for name in (*MATRICES, *suggestions()):
        assert name in out


def test_data_fetch_offline_says_what_to_do(places, capsys, monkeypatch):
    monkeypatch.setattr("workbench.data.suitesparse.BASE_URL", "http://127.0.0.1:9/MM")
    assert call("data", "fetch", "Some/thing") == 1
    one_sentence(capsys, "no network connection", str(places / "home" / "cache"), "save it as")


def test_data_fetch_of_a_file_placed_by_hand(places, capsys):
    place = places / "home" / "cache" / "suitesparse" / "Some" / "thing.mtx"
    place.parent.mkdir(parents=True)
    scipy.io.mmwrite(place, sp.csr_array([[1.0, 0.0], [2.0, 3.0]]))
    assert call("data", "fetch", "Some/thing") == 0
    out = capsys.readouterr().out
    assert "Some/thing: 2 x 2, 3 entries, was in the cache" in out and "recorded on first use" in out


def test_help_lists_every_command():
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    for command in ("papers", "run", "bench", "serve", "lab", "copy", "doctor", "results", "data"):
        assert f"  {command} " in result.output
        assert CliRunner().invoke(cli.app, [command, "--help"]).exit_code == 0
    assert CliRunner().invoke(cli.app, []).output == result.output


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    )


def test_as_a_program():
    import workbench

    done = python("-m", "workbench", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, workbench.__version__)
    done = python("-m", "workbench", "run", "smahs")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip() == "workbench: no paper 'smahs'; did you mean 'smash'?"


def test_the_command_line_starts_light():
    heavy = "torch scipy plotly ipywidgets networkx rich.table jupyterlab voila workbench.papers"
    code = f"import sys, workbench.app.cli; print(*(m for m in '{heavy}'.split() if m in sys.modules))"
    done = python("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "")


@pytest.mark.slow
def test_running_a_real_paper_as_a_program(tmp_path):
    done = python("-m", "workbench", "run", "smash", "--size", "tiny", WORKBENCH_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Claims" in done.stdout and "modelled" in done.stdout
    made = {path.name for path in (tmp_path / "results" / "smash").iterdir()}
    assert made == {f"{e.key}-tiny.json" for e in papers.get("smash").experiments}
