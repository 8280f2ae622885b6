"""CIFAR-10: 60,000 small photographs of ten kinds of things (Krizhevsky 2009), fetched once when somebody asks for it.

The binary archive is read, not the one of pickles. A record is one byte for the label and 3,072 for the picture: 1,024
of red, row by row, then of green, then of blue.
"""

import tarfile
from pathlib import Path

import numpy as np

from workbench import folders

__all__ = ["CLASSES", "Cifar10Error", "cifar10", "read_cifar10"]

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # as the page that offers it says
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAINING = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
RECORD = 1 + 3 * 32 * 32
MOST_RECORDS = 10_000  # of a file
TIMEOUT_S = 30

Part = tuple[np.ndarray, np.ndarray]


class Cifar10Error(OSError):
    """The archive could not be fetched; the message says why and what to do instead."""


def cifar10() -> tuple[Part, Part]:
    """Return CIFAR-10, downloading 170 MB into the cache folder at the first use.

    Returns
    -------
    50,000 pictures to train on and 10,000 to test on, each as uint8 (n, 3, 32, 32) with labels int64 (n,).

    Raises
    ------
    Cifar10Error (an OSError) : no network, or no room.
    ValueError : the file is not the published one.
    """
    return read_cifar10(fetch())


def fetch() -> Path:
    """Return the archive in the cache folder; it is downloaded when absent, and checked against its published hash."""
    import pooch
    import requests

    path = folders.cache() / "cifar10" / URL.rpartition("/")[2]
    by_hand = f"download {URL} elsewhere and save it as {path}"
    pooch.get_logger().setLevel("ERROR")
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(URL, known_hash=f"md5:{MD5}", fname=path.name, path=path.parent, downloader=downloader)
    except (requests.RequestException, OSError) as error:
        raise Cifar10Error(f"cifar10: cannot fetch the archive ({type(error).__name__}); {by_hand}") from error
    return path


def read_cifar10(archive: str | Path) -> tuple[Part, Part]:
    """Read an archive of the binary version.

    Parameters
    ----------
    archive : path of a tar file, compressed or not, with ``data_batch_1.bin`` to ``data_batch_5.bin`` and
        ``test_batch.bin`` in any folder. Nothing is unpacked onto the disk.

    Returns
    -------
    As `cifar10`, in the order of the files.

    Raises
    ------
    ValueError : not such an archive; a file that is missing, too long, or holds anything but whole records; a label
        above 9.
    """
    try:
        with tarfile.open(archive) as opened:
            files = {Path(member.name).name: member for member in opened if member.isfile()}
            missing = [name for name in (*TRAINING, *TEST) if name not in files]
            if missing:
                raise ValueError(f"read_cifar10: {archive} lacks {', '.join(missing)}")
            training, test = ([_records(opened, files[name]) for name in names] for names in (TRAINING, TEST))
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"read_cifar10: {archive} is no tar archive that can be read: {error}") from error
    return _part(training), _part(test)


def _records(opened, member):
    if not member.size or member.size % RECORD or member.size > MOST_RECORDS * RECORD:
        raise ValueError(
            f"read_cifar10: {member.name} has {member.size:,} bytes; up to {MOST_RECORDS:,} records of {RECORD:,} "
            "bytes are wanted"
        )
    found = np.frombuffer(opened.extractfile(member).read(), np.uint8).reshape(-1, RECORD)
    if found[:, 0].max() >= len(CLASSES):
        raise ValueError(f"read_cifar10: {member.name} holds the label {found[:, 0].max()}; labels are 0 to 9")
    return found


def _part(batches):
    records = np.concatenate(batches)
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), records[:, 0].astype(np.int64)
