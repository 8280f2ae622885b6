"""Imports point one way, `kernels` is ours, and looking needs no torch."""

import subprocess
import sys

import pytest


def test_import_linter_passes(root):
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_name_kernels_is_ours(root):
    import kernels

    assert kernels.__file__ == str(root / "kernels" / "__init__.py")


EVERYTHING_OF = (
    "import pkgutil, importlib, {0};"
    "[importlib.import_module(m.name) for m in pkgutil.walk_packages({0}.__path__, '{0}.')]"
)


@pytest.mark.parametrize(
    "code",
    [EVERYTHING_OF.format("kernels"), EVERYTHING_OF.format("widgets"), "import workbench.papers as p; p.catalog()"],
    ids=["kernels", "widgets", "catalog"],
)
def test_importing_brings_no_torch(root, code):
    code += "; import sys; sys.exit('torch' in sys.modules and 'torch is imported')"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_imports_the_public_package_of_our_name(root, modules):
    text = (root / "pyproject.toml").read_text()
    assert '"kernels"' not in text.split("[project.scripts]")[0]
