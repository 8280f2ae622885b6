"""Records of experiments: one small JSON file each, written whole or not at all.

Schema 2, one object: ``schema, paper, experiment, title, kind, size, seed, matrix``, then ``rows`` (flat objects with
at least ``quantity, value, unit, kind``), ``claims`` (``key, statement, where, paper_value, tag, whose, ours,
verdict``, and ``because`` where the word needs a reason), ``machine``, ``versions``, ``wall_s`` and ``date``. Each row
and each claim has a line of its own, and rows hold six significant digits, so that a change of one number is a change
of one line.

Records go to the user's home folder. Only runs at size "full" on the paper's own input can be published, and only
when asked to: they stand in ``workbench/results/<paper>/<experiment>.json``, beside the README.md that is made from
them, and make RESULTS.md.
"""

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, get_args

import numpy as np

from workbench import folders
from workbench.paper import Verdict

SCHEMA = 2
DIGITS = 6
WITHIN = "in "  # begins a label that holds one of the numbers that a row's value is the mean of; tables leave it out
KEYS = {"schema", "paper", "experiment", "title", "kind", "size", "seed", "matrix", "rows", "claims"}
KEYS |= {"machine", "versions", "wall_s", "date"}
ROW_KEYS = ("quantity", "value", "unit", "kind")
ROW_KINDS = ("measured", "modelled", "counted")
CLAIM_KEYS = {"key", "statement", "where", "paper_value", "tag", "whose", "ours", "verdict"}
VERDICTS = get_args(Verdict)
NOT_JUDGED = "not judged"
REASONED = ("fitted", "undecided")
OWNERS = ("paper", "workbench")


def publishable(record: dict) -> bool:
    """Tell whether readers may see a record: size "full", on the paper's own input."""
    return record["size"] == "full" and not record["matrix"]


def path_of(record: dict, publish: bool = False) -> Path:
    """Return where a record belongs."""
    if publish:
        return folders.published() / record["paper"] / f"{record['experiment']}.json"
    labels = [record["experiment"], record["size"], *([Path(record["matrix"]).stem] if record["matrix"] else [])]
    return folders.home() / "results" / record["paper"] / f"{'-'.join(labels)}.json"


def require_writable(size: str, matrix=None, publish: bool = False) -> None:
    """Raise, before any work is done, when the coming records cannot be written or published.

    Raises
    ------
    ValueError : only size "full" on the paper's own input can be published.
    OSError : the folder cannot be written to.
    """
    coming = {"size": size, "matrix": matrix, "paper": "probe", "experiment": "probe"}
    if publish and not publishable(coming):
        raise ValueError('run: only size "full" on the paper\'s own input can be published; leave out --publish')
    folder = path_of(coming, publish).parent.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise _unwritable(folder, error) from error


def write(record: dict, *, publish: bool = False) -> Path:
    """Write a record atomically and return its path: in the user's home folder, or where readers see it.

    Raises
    ------
    ValueError : the record breaks the schema, holds a number that JSON cannot, or may not be published.
    OSError : the folder cannot be written to, or the disk is full; the file that was there before stays whole.
    """
    validate(record)
    if publish and not publishable(record):
        raise ValueError(
            f"record {record['paper']}/{record['experiment']}: only full runs on the paper's input publish"
        )
    path = path_of(record, publish)
    write_json(path, record)
    return path


def read(paper: str, experiment: str) -> dict:
    """Return a published record, one's own before the one that came with the package.

    Raises
    ------
    FileNotFoundError, ValueError : there is none, or it is damaged; the message says how to make it.
    """
    places = [place / paper / f"{experiment}.json" for place in (folders.published(), folders.shipped())]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"no record {places[0]}; make it with: workbench run {paper} --publish")
    again = f"make it again: workbench run {paper} --publish"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"record {path} is not valid JSON ({error}); {again}") from None
    if found.get("schema") != SCHEMA:
        raise ValueError(f"record {path} has schema {found.get('schema')!r}, wanted {SCHEMA}; {again}")
    return found


def all_records(experiments: Collection[str] = ()) -> list[dict]:
    """Return every published record of an experiment, or of those that are named, by paper and experiment."""
    paths = [path for place in (folders.published(), folders.shipped()) for path in place.glob("*/*.json")]
    keys = sorted({(path.parent.name, path.stem) for path in paths if path.parent.name != "bench"})
    keys = [key for key in keys if not experiments or key[1] in experiments]
    return [read(*key) for key in keys]


def validate(record: dict) -> None:
    """Raise ValueError naming the first thing that breaks the schema."""
    if set(record) != KEYS:
        missing, extra = sorted(KEYS - set(record)), sorted(set(record) - KEYS)
        raise ValueError(f"record: keys differ from schema {SCHEMA}: missing {missing}, unknown {extra}")
    if record["schema"] != SCHEMA:
        raise ValueError(f"record: schema must be {SCHEMA}, got {record['schema']!r}")
    name = f"record {record['paper']}/{record['experiment']}"
    validate_rows(name, record["rows"])
    verdicts = VERDICTS if record["size"] == "full" else (*VERDICTS, NOT_JUDGED)
    for claim in record["claims"]:
        where = f"{name}, claim {claim.get('key')}"
        keys = set(claim) - {"because"}
        if keys != CLAIM_KEYS:
            missing, extra = sorted(CLAIM_KEYS - keys), sorted(keys - CLAIM_KEYS)
            raise ValueError(f"{where}: keys differ from schema {SCHEMA}: missing {missing}, unknown {extra}")
        for key, words in (("whose", OWNERS), ("verdict", verdicts)):
            if claim[key] not in words:
                raise ValueError(f"{where}: {key} must be one of {', '.join(words)}; got {claim[key]!r}")
        if bool(claim.get("because")) != (claim["verdict"] in REASONED):
            raise ValueError(
                f"{where}: {' and '.join(REASONED)} have a reason, other verdicts have none; got "
                f"{claim['verdict']!r} because {claim.get('because', '')!r}; use workbench.judging.fitted or undecided"
            )


def validate_rows(name: str, rows: list[dict]) -> None:
    """Raise ValueError naming the first row that lacks something or holds what a record cannot."""
    for i, row in enumerate(rows):
        where = f"{name}, row {i}"
        absent = [key for key in ROW_KEYS if key not in row]
        if absent:
            raise ValueError(f"{where}: lacks {', '.join(absent)}")
        if row["kind"] not in ROW_KINDS:
            raise ValueError(f"{where}: kind must be one of {', '.join(ROW_KINDS)}; got {row['kind']!r}")
        for key, value in row.items():
            if not isinstance(value, (str, bool, int, float, np.integer, np.floating, np.bool_)):
                raise ValueError(f"{where}: {key} must be a text or a number, got {type(value).__name__}")
            if isinstance(value, (float, np.floating)) and not math.isfinite(value):
                raise ValueError(f"{where}: {key} is {value}; rows hold finite numbers")


def rounded(content: Any) -> Any:
    """Return content in plain Python, its floating-point numbers at six significant digits, all else as it is."""
    if isinstance(content, np.generic):
        content = content.item()
    if isinstance(content, float):
        return float(f"{content:.{DIGITS}g}")
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [rounded(value) for value in content]
    return content


def because(claim: dict) -> str:
    """Return what stands behind a claim's verdict: its reason in brackets, or nothing."""
    return f" ({claim['because']})" if "because" in claim else ""


def verdict_counts(claims: Iterable[dict]) -> dict[str, int]:
    """Return how often each verdict was given to the paper's own claims, in the order of the words, without zeros."""
    found = Counter(claim["verdict"] for claim in claims if claim["whose"] == "paper")
    return {word: found[word] for word in (*VERDICTS, NOT_JUDGED) if found[word]}


def write_json(path: Path, content: dict | list[dict]) -> None:
    """Write one record, or a list of them, atomically: readers see the old file or the new, never a half.

    Lists of objects (rows, claims, cases of a bench) have one object a line, and six significant digits in it.
    """
    text = "[\n" + ",\n".join(map(_lines, content)) + "\n]" if isinstance(content, list) else _lines(content)
    write_text(path, text + "\n")


def _lines(record):
    parts = []
    for key, value in record.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            text = "[\n" + ",\n".join(f"  {_dumped(rounded(item))}" for item in value) + "\n ]"
        else:
            text = _dumped(value, indent=1).replace("\n", "\n ")
        parts.append(f" {_dumped(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


def _dumped(content, **how):
    return json.dumps(content, ensure_ascii=False, allow_nan=False, default=_plain, **how)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; an OSError names the file, the reason and the cure."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False, suffix=".part") as file:
            temporary = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path, error):
    cure = "free some space, or choose another folder with WORKBENCH_HOME"
    return OSError(error.errno, f"cannot write {path}: {error.strerror or error}; {cure}")


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"record: {type(value).__name__} is not JSON-safe")
