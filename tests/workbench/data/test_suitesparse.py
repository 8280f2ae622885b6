import http.server
import io
import tarfile
import threading

import numpy as np
import pytest

from workbench.data import suitesparse as module
from workbench.data.suitesparse import DownloadError, cached, folder, known_hash, registry, suitesparse
from workbench.data.unpacking import DataFileError

MTX = b"%%MatrixMarket matrix coordinate real general\n2 3 2\n1 1 5\n2 3 7\n"
WANT = [[5, 0, 0], [0, 0, 7]]


def archive(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def collection(home, monkeypatch):
    """A collection on loopback: path -> bytes, and the list of paths that were asked for."""
    files, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = files.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(module, "BASE_URL", f"http://127.0.0.1:{server.server_address[1]}/MM")
    yield files, asked
    server.shutdown()
    server.server_close()


def test_downloads_once_and_keeps_the_hash(collection):
    files, asked = collection
    files["/MM/Some/thing.tar.gz"] = archive({"thing/thing_b.mtx": b"no", "thing/thing.mtx": MTX})
    progress = []
    assert known_hash("Some/thing") == ("", "")
    first = suitesparse("Some/thing", lambda done, total: progress.append((done, total)))
    again = suitesparse("Some/thing")
    np.testing.assert_array_equal(first.toarray(), WANT)
    np.testing.assert_array_equal(again.toarray(), WANT)
    assert asked == ["/MM/Some/thing.tar.gz"]
    size = len(files["/MM/Some/thing.tar.gz"])
    assert progress[-1] == (size, size)
    assert known_hash("Some/thing")[1] == "recorded on first use"


def test_a_file_that_changed_is_refused(collection):
    files, _ = collection
    files["/MM/Some/thing.tar.gz"] = archive({"thing/thing.mtx": MTX})
    suitesparse("Some/thing")
    cached("Some/thing").write_bytes(archive({"thing/thing.mtx": MTX.replace(b"7", b"8")}))
    with pytest.raises(ValueError, match="damaged or was changed; delete it"):
        suitesparse("Some/thing")


def test_a_hash_in_the_registry_is_enforced(collection, monkeypatch):
    files, _ = collection
    files["/MM/Some/thing.tar.gz"] = archive({"thing/thing.mtx": MTX})
    monkeypatch.setattr(module, "registry", lambda: {"Some/thing": {"about": "", "sha256": "0" * 64}})
    with pytest.raises(ValueError, match="hash published"):
        suitesparse("Some/thing")


def test_a_name_that_the_collection_lacks(collection):
    with pytest.raises(DownloadError, match="the collection has no such matrix"):
        suitesparse("Some/absent")
    assert cached("Some/absent") is None


def test_offline_says_what_to_do_and_the_file_placed_by_hand_is_found(home, monkeypatch):
    monkeypatch.setattr(module, "BASE_URL", "http://127.0.0.1:9/MM")
    place = folder() / "Some" / "thing.tar.gz"
    with pytest.raises(DownloadError, match="elsewhere and save it as") as error:
        suitesparse("Some/thing")
    assert str(place) in str(error.value) and "no network connection" in str(error.value)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(archive({"thing/thing.mtx": MTX}))
    np.testing.assert_array_equal(suitesparse("Some/thing").toarray(), WANT)


def test_a_plain_file_placed_by_hand_is_found(home):
    place = folder() / "Some" / "thing.mtx"
    place.parent.mkdir(parents=True)
    place.write_bytes(MTX)
    np.testing.assert_array_equal(suitesparse("Some/thing").toarray(), WANT)


def test_a_damaged_download_leaves_no_hash(collection):
    files, _ = collection
    files["/MM/Some/thing.tar.gz"] = archive({"thing/thing.mtx": MTX})[:60]
    with pytest.raises(DataFileError, match=r"thing\.tar\.gz: .* damaged or cut off"):
        suitesparse("Some/thing")
    assert known_hash("Some/thing") == ("", "")


def test_an_archive_without_the_matrix(collection):
    files, _ = collection
    files["/MM/Some/thing.tar.gz"] = archive({"thing/readme.txt": MTX})
    with pytest.raises(DataFileError, match=r"must hold one \.mtx file, holds none"):
        suitesparse("Some/thing")


def test_a_download_beyond_the_limit_is_stopped(collection, monkeypatch):
    files, _ = collection
    files["/MM/Some/thing.tar.gz"] = b"x" * 5000
    monkeypatch.setattr(module, "MAX_DOWNLOAD_BYTES", 1000)
    with pytest.raises(DownloadError, match="5,000 bytes, the limit is 1,000"):
        suitesparse("Some/thing")
    assert cached("Some/thing") is None


def test_a_folder_that_cannot_be_written(home):
    (home / "cache").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot fetch"):
        suitesparse("Some/thing")


@pytest.mark.parametrize("name", ["", "thing", "a/b/c", "../etc/passwd", "a/..", "a b/c", "a/b\n", "http://x/y"])
def test_names_that_are_no_group_and_name(name, home):
    with pytest.raises(ValueError, match="Group/name"):
        suitesparse(name)


def test_registry_names_are_well_formed_and_hashes_are_whole():
    for name, entry in registry().items():
        assert module.NAME.match(name) and entry["about"]
        assert len(entry["sha256"]) in (0, 64)
