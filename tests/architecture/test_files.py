"""House rules on files: names, lengths, what may stand in them."""

import ast
import re

import pytest

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


# What is gathered from folders: nobody else may know an entry by name.
ENTRIES = re.compile(r"workbench/(papers/(?P<paper>\w+)/entry|explorers/\w+/(methods|sources)/(?P<file>\w+))\.py")
# Where an entry's own words are its business; its choices may be called like another entry.
OWN = re.compile(r"workbench/(papers/\w+/|explorers/\w+/(methods|sources)/)|workbench/models/|kernels/")


def _compared(tree):
    """Every constant that is compared with something, or looked for in something, and what it is looked for in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for part in (node.left, *node.comparators):
                inside = part.elts if isinstance(part, ast.Tuple | ast.List | ast.Set) else [part]
                yield from ((node, each.value) for each in inside if isinstance(each, ast.Constant))
        elif isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant):
            yield node, node.value.value


def branches_on(tree, keys):
    """Return the lines that compare with a key, or look for a constant among an entry's knobs or settings."""
    lines = [node.pattern.lineno if isinstance(node, ast.match_case) else getattr(node, "lineno", 0)
             for node, value in _compared(tree) if value in keys]  # fmt: skip
    for node in ast.walk(tree):
        looks = isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant)
        if looks and any(isinstance(op, ast.In | ast.NotIn) for op in node.ops):
            where = ast.unparse(node.comparators[0])
            if where.endswith((".knobs", ".settings", ".depends")):
                lines.append(node.lineno)
    return lines


def test_nobody_branches_on_a_key(modules):
    found = [ENTRIES.fullmatch(path.as_posix()) for path in modules]
    keys = {match["paper"] or match["file"] for match in found if match} - {"__init__"}
    assert {"smash", "xattention", "combiner_alone", "lm"} <= keys
    for path, tree in modules.items():
        if not OWN.match(path.as_posix()):
            assert not branches_on(tree, keys), f"{path}:{branches_on(tree, keys)} branches on an entry's key"


@pytest.mark.parametrize(
    "disguise",
    [
        "key == 'guest'",
        "'guest' != key",
        "key in ('other', 'guest')",
        "'pattern' in method.knobs",
        "'segments' not in METHODS[state['method']].knobs",
        "source and 'words' in source.settings",
    ],
)
def test_a_disguised_branch_is_seen(disguise):
    assert branches_on(ast.parse(disguise), {"guest"})


def test_a_module_of_the_libraries_has_a_docstring(modules):
    for path, tree in modules.items():
        assert ast.get_docstring(tree), f"{path} does not say what it is"
