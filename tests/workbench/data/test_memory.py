"""What small files cost: each attack is read in a process of its own, whose peak is compared with the one before."""

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from workbench.data.limits import VISITOR

MOST_BYTES = 300_000_000
BANNER = b"%%MatrixMarket matrix coordinate "
# The peak of `getrusage` starts at the size of the process that started this one, so the kernel's own is read.
READ = """
import re, sys
{before}
def peak(): return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
content = open(sys.argv[1], "rb").read()
start = peak()
try:
    {read}
    print("read", end=" ")
except ValueError as error:
    print("refused:", error, end=" ")
print("|", peak() - start)
"""
MATRIX = READ.format(
    before="from workbench.data.limits import VISITOR\n"
    "from workbench.data.matrix_files import check_matrix, read_matrix",
    read="read_matrix(content, VISITOR, 'mine')",
)
HEADER = MATRIX.replace("read_matrix(content, VISITOR, 'mine')", "check_matrix(content, VISITOR)")
HEADS = READ.format(
    before="from workbench.data.limits import VISITOR\nfrom workbench.explorers.attention.own import read_attention",
    read="read_attention(content, 'mine', VISITOR)",
)
ZEROS = bytes(2**20)


def npz(arrays):
    """An .npz of zeros that takes no memory to make: key -> dtype, shape, or an array itself."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, what in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                if isinstance(what, np.ndarray):
                    np.lib.format.write_array(member, what)
                    continue
                dtype, shape = np.dtype(what[0]), what[1]
                head = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, head)
                left = dtype.itemsize * int(np.prod(shape))
                while left:
                    left -= member.write(ZEROS[:left])
    return content.getvalue()


def csr(entries, side):
    parts = {"data": ("f8", (entries,)), "indices": ("i4", (entries,)), "indptr": ("i4", (side + 1,))}
    return npz(parts | {"shape": np.array([side, side]), "format": np.array(b"csr")})


def repeated_gzip(head, line, megabytes):
    """A .gz of many members, which unpacks to far more than it took to make."""
    body = gzip.compress(line * (2**20 // len(line)))
    return gzip.compress(head) + megabytes * body


def sparse_tar():
    header = tarfile.TarInfo("thing/thing.mtx")
    header.size, header.type = 0, tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"\x80\x00\x00\x00\x0a" + bytes(7)  # the size that it asks for: 10 TB and more
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return gzip.compress(bytes(block) + bytes(1024))


def sparse_pax_tar(files=1, size=0):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for i in range(files):
            member = tarfile.TarInfo(f"{i}/{i}.mtx")
            member.size = size
            member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(10**13)}
            tar.addfile(member, io.BytesIO(bytes(size)))
    return stream.getvalue()


def xz_that_asks_for_memory():
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**30 + 2**29}]
    return lzma.compress(BANNER + b"real general\n1 1 1\n1 1 1\n", lzma.FORMAT_XZ, filters=filters)


def zip_of_many():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for i in range(40_000):
            archive.writestr(f"{i}.mtx", b"")
    return content.getvalue()


def long_header():
    """An .npy whose header says that it has 4 GB."""
    return b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b" " * 100


def deflate_bomb():
    """An .npz member that unpacks to 600 MB although the archive declares 800 bytes."""
    content = bytearray(npz({"a": ("f8", (75_000_000,))}))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.rindex(signature) + at
        content[place : place + 4] = (928).to_bytes(4, "little")
    return bytes(content)


ATTACKS = {
    "sides of 2^27 in 74 bytes": lambda: BANNER + b"real general\n134217728 134217728 1\n1 1 1\n",
    "an .npz of 600 MB": lambda: csr(50_000_000, 10),
    "an .npz whose members declare less than they unpack to": deflate_bomb,
    "an .npz with a side of 2^27": lambda: npz(
        {"data": ("f8", (0,)), "row": ("i4", (0,)), "col": ("i4", (0,)), "format": np.array(b"coo")}
        | {"shape": np.array([2**27, 2**27])}
    ),
    "an .mtx.gz of 1.1 GB": lambda: repeated_gzip(BANNER + b"pattern general\n9 9 275251200\n", b"1 1\n", 1100),
    "an .mtx.gz of 1.1 GB of empty lines": lambda: repeated_gzip(BANNER + b"real general\n9 9 0\n", b"\n", 1100),
    "an .mtx.gz of 1.1 GB of comments": lambda: repeated_gzip(BANNER + b"real general\n", b"%" * 1023 + b"\n", 1100),
    "an .mtx.bz2 of 1 GB": lambda: bz2.compress(BANNER) + bz2.compress(b" " * 2**24) * 64,
    "an .mtx.xz that asks for 1.5 GB": xz_that_asks_for_memory,
    "a sparse member of 10 TB": sparse_tar,
    "a sparse member in extended headers": sparse_pax_tar,
    "an archive of 40,000 files": zip_of_many,
    "an .npy header of 4 GB": long_header,
    "a dense .npy.gz of 800 MB": lambda: repeated_gzip(b"\x93NUMPY", b"\0" * 64, 800),
}
LARGEST = {
    "entries of a sparse .npz": lambda: csr(0, 1_999_999),
    "a dense .npy.gz": lambda: gzip.compress(_npy(np.ones((2_200, 2_200)))),
    "a dense .npy.gz of zeros in bytes": lambda: gzip.compress(_npy(np.zeros((9_900, 9_900), np.int8)), 1),
    "a COO .npz of duplicates": lambda: npz(
        {"data": ("i8", (4_900_000,)), "row": ("i4", (4_900_000,)), "col": ("i4", (4_900_000,))}
        | {"format": np.array(b"coo"), "shape": np.array([9, 9])}
    ),
    "a DIA .npz": lambda: npz(
        {"data": np.ones((49, 100_000)), "offsets": np.arange(49)}
        | {"format": np.array(b"dia"), "shape": np.array([100_000, 100_000])}
    ),
    "an .mtx.gz of pairs": lambda: gzip.compress(BANNER + b"pattern general\n9 9 5000000\n" + b"1 1\n" * 5_000_000),
    "an .mtx.gz that is mirrored": lambda: gzip.compress(
        BANNER + b"integer symmetric\n9 9 2500000\n" + b"2 1 1234567\n" * 2_500_000
    ),
    "an .mtx.gz of long lines": lambda: gzip.compress(
        BANNER + b"real general\n9 9 4500000\n" + b"1 1 0.123456789012345\n" * 4_500_000, 1
    ),
}


def _npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def cost(script, content, tmp_path):
    path = tmp_path / "content"
    path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said, _, extra = done.stdout.rpartition("|")
    return said, int(extra)


QUICK = ("sides of 2^27 in 74 bytes", "an .npz of 600 MB", "an .mtx.gz of 1.1 GB", "a sparse member of 10 TB")


@pytest.mark.parametrize(
    "attack", [pytest.param(key, marks=() if key in QUICK else (pytest.mark.slow,)) for key in ATTACKS]
)
def test_a_small_file_is_refused_before_it_costs_memory(attack, tmp_path):
    content = ATTACKS[attack]()
    assert len(content) <= VISITOR.file_bytes
    for script in (MATRIX, HEADER):
        said, extra = cost(script, content, tmp_path)
        assert extra < MOST_BYTES / 2, f"{said} {extra:,}"
        if script is MATRIX:
            assert said.startswith("refused: mine"), said


@pytest.mark.slow
@pytest.mark.parametrize("file", LARGEST)
def test_the_largest_files_that_are_taken_stay_below_the_ceiling(file, tmp_path):
    content = LARGEST[file]()
    assert len(content) <= VISITOR.file_bytes
    said, extra = cost(MATRIX, content, tmp_path)
    assert said.startswith("read"), said
    assert extra < MOST_BYTES, f"{extra:,}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"q": ("f4", (75_000_000, 1)), "k": ("f4", (75_000_000, 1))}, "refused: mine: declares 600,000"),
        ({"q": ("f4", (20, 65537, 8)), "k": ("f4", (20, 65537, 8))}, "refused: mine has 65,537 tokens"),
        ({"q": ("f8", (6, 10_000, 100)), "k": ("f8", (6, 10_000, 100))}, "read"),
        ({"q": ("f2", (8, 10_000, 200)), "k": ("f2", (8, 10_000, 200)), "v": ("f2", (8, 10_000, 200))}, "read"),
    ],
)
def test_queries_and_keys_stay_below_the_ceiling(arrays, said, tmp_path):
    content = npz(arrays)
    found, extra = cost(HEADS, content, tmp_path)
    assert found.startswith(said)
    assert extra < MOST_BYTES, f"{extra:,}"


def test_the_attacks_unpack_to_what_they_say():
    assert len(zlib.decompress(repeated_gzip(b"", b"1 1\n", 1)[20:], 31)) == 2**20
    with tarfile.open(fileobj=io.BytesIO(sparse_tar())) as tar:
        assert tar.getmembers()[0].size > 10**13
