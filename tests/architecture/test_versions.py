"""One version everywhere, and two lists of dependencies that agree."""

import re
import tomllib

import pytest
import yaml

# What conda-forge calls differently, and what only one of the two lists needs.
CONDA_NAMES = {"torch": "pytorch-cpu", "huggingface-hub": "huggingface_hub"}
CONDA_ALONE = {"python", "pip", "make", "cmake", "ninja", "cxx-compiler"}


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())


def _split(requirement):
    name, bound = re.fullmatch(r"([\w.-]+)(.*)", requirement.replace(" ", "")).groups()
    return name, bound


def test_the_version_is_the_same_everywhere(root, project):
    import kernels
    import workbench

    version = project["project"]["version"]
    assert re.fullmatch(r"20\d\d\.\d{1,2}\.\d+", version), "calendar versions only: see the name `kernels`"
    assert kernels.__version__ == workbench.__version__ == version
    newest = re.search(r"^## \[(.+?)\]", (root / "CHANGELOG.md").read_text(), re.MULTILINE).group(1)
    assert newest == version


def test_conda_and_pip_ask_for_the_same(root, project):
    conda = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    by_pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    listed = dict(_split(entry) for entry in [*conda, *by_pip] if isinstance(entry, str) and not entry.startswith("-"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"], *extras["test"]]
    wanted = {CONDA_NAMES.get(name, name): bound for name, bound in map(_split, wanted)}
    assert {name: bound for name, bound in listed.items() if name not in CONDA_ALONE} == wanted
    assert listed["python"] == project["project"]["requires-python"]
    assert "--editable ." in by_pip


def test_torch_is_pinned(project):
    pins = [entry for entry in project["project"]["dependencies"] if entry.startswith("torch")]
    assert len(pins) == 1 and pins[0].startswith("torch=="), "a range makes pip fetch gigabytes"
