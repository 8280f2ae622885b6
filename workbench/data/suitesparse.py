"""Fetches matrices of the SuiteSparse Matrix Collection by group and name, once, into the cache folder.

Hashes: the few that were verified stand in ``suitesparse.toml``. For every other matrix nobody gave us one, so the hash
of the first download is kept beside the file and each later use is checked against it; that finds damage and change,
not a first download that was wrong.
"""

import hashlib
import importlib.resources
import json
import re
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from workbench import folders
from workbench.data.limits import LIBRARY
from workbench.data.matrix_market import read_matrix_market, with_float_values

BASE_URL = "https://sparse.tamu.edu/MM"
MAX_DOWNLOAD_BYTES = 2**29
TIMEOUT_S = 30
NAME = re.compile(r"(?!\.)[\w.+-]+/(?!\.)[\w.+-]+\Z", re.ASCII)


class DownloadError(OSError):
    """A matrix could not be fetched; the message says why and what to do instead."""


def suitesparse(name, progress=None):
    """Return a matrix of the SuiteSparse collection, downloading it at the first use.

    Parameters
    ----------
    name : ``"Group/name"``, such as ``"SNAP/wiki-Vote"``.
    progress : ``progress(bytes_done, bytes_total)``, called during the download; it may raise to stop it.

    Returns
    -------
    csr_array, float64, canonical.

    Raises
    ------
    ValueError : malformed name, a file that holds no readable matrix, or one that differs from its known hash.
    DownloadError (an OSError) : no network, no such matrix, or a download beyond 512 MiB.
    """
    archive = fetch(name, progress)
    matrix = read_matrix_market(archive, replace(LIBRARY, file_bytes=MAX_DOWNLOAD_BYTES))
    _record_first_use(name, archive)  # only of a file that could be read
    return with_float_values(name, matrix)


def fetch(name, progress=None) -> Path:
    """Return the file of a matrix in the cache folder; it is downloaded when absent. See `suitesparse`."""
    _check_name(name)
    path = cached(name)
    if path is None:
        path = folder() / f"{name}.tar.gz"
        _download(name, path, progress)
    _check_hash(name, path)
    return path


def cached(name) -> Path | None:
    """Return where a matrix lies in the cache folder, None when it is not there."""
    _check_name(name)
    candidates = (folder() / f"{name}{ending}" for ending in (".tar.gz", ".mtx.gz", ".mtx"))
    return next((path for path in candidates if path.is_file()), None)


def folder() -> Path:
    """Return the cache folder: ``Group/name.tar.gz`` (or .mtx, .mtx.gz) placed there by hand is found."""
    return folders.cache() / "suitesparse"


def registry() -> dict[str, dict]:
    """Return the matrices that we suggest: name -> ``{"about": ..., "sha256": ... or ""}``."""
    text = importlib.resources.files("workbench.data").joinpath("suitesparse.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["matrices"]


def known_hash(name) -> tuple[str, str]:
    """Return the SHA-256 that a matrix must have and where we know it from; both empty when nobody told us."""
    listed = registry().get(name, {}).get("sha256", "")
    if listed:
        return listed, "published"
    recorded = _first_uses().get(name, {}).get("sha256", "")
    return recorded, "recorded on first use" if recorded else ""


def _download(name, path, progress):
    import pooch
    import requests

    url = f"{BASE_URL}/{name}.tar.gz"
    by_hand = f"download {url} elsewhere and save it as {path}"
    downloader = pooch.HTTPDownloader(progressbar=_Meter(name, progress), chunk_size=2**16, timeout=TIMEOUT_S)
    pooch.get_logger().setLevel("ERROR")  # it would announce what our progress shows
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=downloader)
    except requests.HTTPError as error:
        code = error.response.status_code
        reason = "the collection has no such matrix" if code == 404 else f"the server answers {code}"
        raise DownloadError(f"suitesparse: cannot fetch {name}: {reason} ({url})") from error
    except requests.RequestException as error:
        raise DownloadError(f"suitesparse: cannot reach {url} ({_reason(error)}); {by_hand}") from error
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"suitesparse: cannot fetch {name} into {path.parent}: {error}; {by_hand}") from error


class _Meter:
    """What pooch takes for a progress bar: forwards the count of bytes and enforces the limit."""

    def __init__(self, name, progress):
        self._name, self._progress = name, progress or (lambda done, total: None)
        self._total = self._done = 0

    @property
    def total(self):
        return self._total

    @total.setter
    def total(self, value):
        self._total = value
        self._check(value)

    def update(self, count):
        self._done += count
        self._check(min(self._done, self._total) if self._total else self._done)
        self._progress(min(self._done, self._total) if self._total else self._done, self._total)

    def reset(self):
        self._done = 0

    def close(self):
        pass

    def _check(self, size):
        if size > MAX_DOWNLOAD_BYTES:
            limit = f"the limit is {MAX_DOWNLOAD_BYTES:,} bytes"
            raise DownloadError(f"suitesparse: {self._name} has {size:,} bytes, {limit}; take a smaller matrix")


def _check_hash(name, path):
    wanted, source = known_hash(name)
    if source == "recorded on first use" and _first_uses()[name]["file"] != path.name:
        return  # another form of the file, put there by hand
    if wanted and (got := _sha256(path)) != wanted:
        cure = f"delete it to download it again (hash {source}: {wanted[:12]}..., now {got[:12]}...)"
        raise ValueError(f"suitesparse: {path} is damaged or was changed; {cure}")


def _record_first_use(name, path):
    if known_hash(name)[0]:
        return
    use = {"sha256": _sha256(path), "file": path.name, "date": datetime.now(UTC).date().isoformat()}
    part = _hash_file().with_suffix(".part")
    part.write_text(json.dumps(_first_uses() | {name: use}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(_hash_file())


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_uses():
    try:
        return json.loads(_hash_file().read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _hash_file():
    return folder() / "hashes.json"


def _check_name(name):
    if not isinstance(name, str):
        raise TypeError(f"suitesparse: name must be a str, got {type(name).__name__}")
    if not NAME.match(name):
        raise ValueError(f"suitesparse: name must be 'Group/name' such as 'SNAP/wiki-Vote', got {name!r}")


def _reason(error):
    import requests

    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection"
    return "no network connection" if isinstance(error, requests.ConnectionError) else str(error)
