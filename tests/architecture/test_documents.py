"""What the pages for contributors show is the code: blocks compile, name what exists, and stay in step with it."""

import ast
import importlib
import re

import pytest

PAGES = ("add-a-paper.md", "add-a-method.md", "add-a-kernel.md", "files.md")
GUESTS = "tests/workbench/test_gathered.py"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"(?:#|//) (\S+\.(?:py|cpp))\n")  # the first line of a block that is taken from a file
PATH = re.compile(r"`((?:kernels|widgets|workbench|notebooks|tests|docs)/[\w/.-]*)`")
INVENTED = re.compile(r"guest|/equal\.py")  # what the reader is shown how to make


@pytest.fixture(scope="module")
def pages(root):
    return {path.name: path.read_text() for path in sorted((root / "docs").glob("*.md"))}


def blocks(text, language):
    return [code for name, code in FENCE.findall(text) if name == language]


def statements(code):
    return {ast.dump(node) for node in ast.parse(code).body}


@pytest.mark.parametrize("name", PAGES)
def test_blocks_compile_and_import_what_exists(pages, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(pages[name], "python")
    assert found
    for code in found:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for each in node.names:
                    if not hasattr(module, each.name):
                        importlib.import_module(f"{node.module}.{each.name}")
        if not QUOTED.match(code):
            exec(compile(code, name, "exec"), {})


def test_the_limits_of_files_are_those_of_the_code(pages):
    from workbench.data.limits import LIBRARY, VISITOR

    rows = re.findall(r"^\|[^|]+\| ([\d,]+) \| ([\d,]+) \|$", pages["files.md"], re.MULTILINE)
    fields = ("file_bytes", "unpacked_bytes", "entries", "side", "members")
    assert rows == [(f"{getattr(VISITOR, key):,}", f"{getattr(LIBRARY, key):,}") for key in fields]


def test_the_guests_are_those_of_the_tests(root, pages):
    shown = {ast.dump(ast.parse(code)) for name in PAGES for code in blocks(pages[name], "python")}
    guests = {node.targets[0].id: node.value.value for node in ast.parse((root / GUESTS).read_text()).body
              if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)}  # fmt: skip
    assert {"ENTRY", "EXERCISES", "METHOD"} <= set(guests)
    for name in ("ENTRY", "EXERCISES", "METHOD"):
        assert ast.dump(ast.parse(guests[name])) in shown, f"the pages do not show {name} of {GUESTS} as it is"


def test_the_source_that_is_shown_gives_a_head(pages):
    module = {}
    exec(next(code for code in blocks(pages["add-a-method.md"], "python") if "SOURCE" in code), module)
    head = module["SOURCE"].load({"tokens": 8})
    assert head.q.shape == head.k.shape == head.v.shape == (1, 1, 8, 16)


def test_quoted_code_is_in_its_file(root, pages):
    quoted = [(QUOTED.match(code), code) for name in PAGES for _, code in FENCE.findall(pages[name])]
    quoted = [(match[1], code) for match, code in quoted if match]
    assert len(quoted) >= 5
    for path, code in quoted:
        source = (root / path).read_text()
        if path.endswith(".py"):
            assert statements(code) <= statements(source), f"{path} no longer holds\n{code}"
        else:
            lines = {line.strip() for line in source.splitlines()}
            missing = [line for line in code.splitlines()[1:] if line.strip() not in lines]
            assert not missing, f"{path} no longer holds {missing}"


def test_paths_and_links_lead_somewhere(root, pages):
    for name, text in pages.items():
        for path in PATH.findall(text):
            if not INVENTED.search(path) and "..." not in path:
                assert (root / path).exists(), f"{name} names {path}"
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", FENCE.sub("", text)):
            if not target.startswith(("http://", "https://")):
                assert (root / "docs" / target).exists(), f"{name} links {target}"
