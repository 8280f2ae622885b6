"""What the README promises exists."""

import re

import pytest

BIGGEST_PICTURE_BYTES = 300_000


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text()


def test_every_make_command_exists(root, readme):
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"(?:`|^)make ([a-z]+)", (root / document).read_text(), re.MULTILINE))
        assert named <= targets, f"{document} names {named - targets}"
    assert {"workbench", "test"} <= set(re.findall(r"^make ([a-z]+)", readme, re.MULTILINE))


def test_every_link_and_picture_exists(root, readme):
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        if not target.startswith(("http://", "https://")):
            assert (root / target).exists(), target


def test_pictures_are_small(root, files):
    for path in files:
        if path.suffix == ".png":
            assert (root / path).stat().st_size < BIGGEST_PICTURE_BYTES, path


def test_papers_are_listed_by_what_is_generated_and_adding_one_leaves_the_readme_alone(root, readme):
    from workbench.papers import catalog

    listed = (root / "RESULTS.md").read_text()
    assert "[RESULTS.md](RESULTS.md) lists the papers" in readme
    for paper in catalog().values():
        assert (
            f"| {paper.family} | [`{paper.key}`](workbench/results/{paper.key}/README.md) | {paper.title} |" in listed
        )
        assert paper.title not in readme and paper.arxiv not in readme, f"README speaks of {paper.key}"
