"""CIFAR-10 read from small archives in the true format, refusals of others, and a download without a network."""

import io
import tarfile

import numpy as np
import pytest

from workbench.data import cifar10
from workbench.data.cifar10 import RECORD, TEST, TRAINING, Cifar10Error, read_cifar10


def archive(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as made:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def batches(rng):
    """Two records in every file; the label stands first."""
    drawn = {name: rng.integers(0, 256, (2, RECORD), dtype=np.uint8) for name in (*TRAINING, *TEST)}
    for i, records in enumerate(drawn.values()):
        records[:, 0] = (i, 9 - i)
    return drawn


@pytest.mark.parametrize("mode", ("w:gz", "w"))
def test_records_are_labels_and_planes_of_colour(tmp_path, batches, mode):
    files = {"batches.meta.txt": b"airplane\n", **{name: x.tobytes() for name, x in reversed(batches.items())}}
    (x, labels), (x_test, labels_test) = read_cifar10(archive(tmp_path / "c.tar.gz", files, mode))
    assert x.shape == (10, 3, 32, 32) and x_test.shape == (2, 3, 32, 32) and x.dtype == np.uint8
    assert labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5] and labels_test.tolist() == [5, 4]
    third = batches["data_batch_2.bin"][0]
    assert x[2, 1, 4, 7] == third[1 + 1024 + 4 * 32 + 7] and x[2, 2, 31, 31] == third[-1]
    assert labels.dtype == np.int64 and x.flags.writeable


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.pop("data_batch_3.bin"), "lacks data_batch_3.bin"),
        (lambda files: files.update({"test_batch.bin": b"1" * (RECORD + 1)}), "3,074 bytes"),
        (lambda files: files.update({"test_batch.bin": b""}), "0 bytes"),
        (lambda files: files.update({"test_batch.bin": b"\x0a" + bytes(RECORD - 1)}), "label 10"),
    ],
)
def test_other_archives_are_refused(tmp_path, batches, change, words):
    files = {name: x.tobytes() for name, x in batches.items()}
    change(files)
    with pytest.raises(ValueError, match=words):
        read_cifar10(archive(tmp_path / "c.tar.gz", files))


def test_what_is_no_archive_is_refused(tmp_path, batches):
    (tmp_path / "c.tar.gz").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="no tar archive"):
        read_cifar10(tmp_path / "c.tar.gz")
    whole = archive(tmp_path / "w.tar.gz", {name: x.tobytes() for name, x in batches.items()}).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no tar archive"):
        read_cifar10(tmp_path / "cut.tar.gz")


def test_without_a_network_the_cure_is_told_and_a_wrong_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    with pytest.raises(Cifar10Error, match=r"cannot fetch .* save it as .*cifar-10-binary\.tar\.gz"):
        cifar10.cifar10()
    there = tmp_path / "cache" / "cifar10" / "cifar-10-binary.tar.gz"
    there.write_bytes(b"not the published one")
    with pytest.raises((Cifar10Error, ValueError)):
        cifar10.cifar10()


def test_the_published_hash_is_asked_for(tmp_path, batches, monkeypatch):
    import hashlib

    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    there = tmp_path / "cache" / "cifar10" / "cifar-10-binary.tar.gz"
    there.parent.mkdir(parents=True)
    archive(there, {name: x.tobytes() for name, x in batches.items()})
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(there.read_bytes()).hexdigest())
    (x, _), _ = cifar10.cifar10()
    assert len(x) == 10
