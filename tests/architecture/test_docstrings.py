"""The public door of every kernel is documented: formula, parameters, returns, raises, source."""

import ast

import pytest

SECTIONS = ("Parameters", "Returns", "Raises", "Source")


def _functions(tree):
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.fixture(scope="module")
def kernels_(modules):
    return {path: _functions(tree) for path, tree in modules.items() if path.parts[0] == "kernels"}


@pytest.fixture(scope="module")
def about(modules):
    """What each module says of itself; its sources may stand there, for all its functions."""
    return {path: ast.get_docstring(tree) or "" for path, tree in modules.items()}


def test_there_is_a_kernel(kernels_):
    assert any(name.endswith("_reference") for functions in kernels_.values() for name in functions)


def test_a_kernel_with_a_reference_documents_its_door(kernels_, about):
    for path, functions in kernels_.items():
        for name in functions:
            door = functions.get(name.removesuffix("_reference")) if name.endswith("_reference") else None
            if door is None:
                continue
            text = ast.get_docstring(door) or ""
            missing = [section for section in SECTIONS if section not in text]
            if "Source" in about[path]:
                missing = [section for section in missing if section != "Source"]
            assert not missing, f"{path}: {door.name} lacks {', '.join(missing)}"


def test_public_functions_of_kernels_have_a_docstring(kernels_):
    for path, functions in kernels_.items():
        for name, node in functions.items():
            assert name.startswith("_") or ast.get_docstring(node), f"{path}: {name} has no docstring"
