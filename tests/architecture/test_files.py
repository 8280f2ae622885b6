"""House rules on files: names, lengths, what may stand in them."""

import ast
import re

# `__init__.py` files that hold more than a docstring, and why.
INITS_WITH_CODE = {
    "kernels/__init__.py": "threads and instruction set are set on the package; its version",
    "workbench/__init__.py": "refuses another package called kernels; the project's version",
    "workbench/papers/__init__.py": "the catalog",
    "workbench/app/exercises/__init__.py": "re-exports the three functions that notebooks call",
}
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "core", "misc"}
LONGEST, LONGEST_TEST = 450, 600
# Files that are longer, and why they are not two.
LONG_FILES = {
    "notebooks/text/papers/smash.py": "a walk-through in eight sections is read from top to bottom",
    "widgets/canvas/canvas.js": "one widget is one ES module, since nothing bundles",
    "widgets/views/frame/view.py": "what every view promises, in one place",
}
SOURCES = {".py", ".cpp", ".hpp", ".js", ".css", ".html"}
MACHINE_PATH = re.compile(r"(?<![\w./-])/(?:work|tmp|root|home|Users|opt)/")


def test_init_files_hold_a_docstring(modules):
    for path, tree in modules.items():
        if path.name == "__init__.py" and str(path) not in INITS_WITH_CODE:
            assert ast.get_docstring(tree), f"{path} has no docstring"
            assert len(tree.body) == 1, f"{path} holds code"


def test_exceptions_exist(root):
    for path in (*INITS_WITH_CODE, *LONG_FILES):
        assert (root / path).is_file(), path


def test_tests_are_no_package(files):
    assert not [path for path in files if path.parts[0] == "tests" and path.name == "__init__.py"]


def test_names_say_what_a_file_is(files):
    for path in files:
        assert not BANNED_NAMES & {part.split(".")[0].lower() for part in path.parts}, path


def test_files_are_short(root, files):
    for path in files:
        if path.suffix in SOURCES and path.parts[0] != "notebooks" and str(path) not in LONG_FILES:
            lines = (root / path).read_text().count("\n")
            longest = LONGEST_TEST if path.parts[0] == "tests" else LONGEST
            assert lines <= longest, f"{path} has {lines} lines; split it, or list it with a reason"


def test_nothing_names_a_machine(root, files):
    for path in files:
        if path.suffix in SOURCES | {".md", ".toml", ".yml", ".ipynb", ".json"} or path.name in ("Makefile", "run"):
            if path.name == "test_files.py":
                continue
            hit = MACHINE_PATH.search((root / path).read_text())
            assert not hit, f"{path} holds the absolute path {hit.group()!r}"


def test_libraries_do_not_print(modules):
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno} prints"


def test_nobody_branches_on_a_paper(modules):
    keys = {path.stem for path in modules if path.parts[:2] == ("workbench", "papers")} - {"__init__"}
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                parts = [node.left, *node.comparators]
            elif isinstance(node, ast.MatchValue):
                parts = [node.value]
            else:
                continue
            named = {part.value for part in parts if isinstance(part, ast.Constant)} & keys
            assert not named, f"{path}:{node.lineno} branches on {named}"


def test_a_module_of_the_libraries_has_a_docstring(modules):
    for path, tree in modules.items():
        assert ast.get_docstring(tree), f"{path} does not say what it is"
