"""A notebook's cells as steps of a page: the kernel learns what was asked for before the first cell that reads it."""

import asyncio

import nbformat
import pytest

from workbench.app.steps import StepRenderer, numbered, step_labels

ASKED = {"QUERY_STRING": "ordering=rcm"}


class Renderer(StepRenderer):
    """Keeps what it would run, and what it tells the kernel, in order; no kernel."""

    def __init__(self, visitor):
        self.visitor, self.failure, self.done = visitor, None, []

    async def _tell(self, code):
        self.done.append("told" if "ordering=rcm" in code else code)

    async def _run(self, cell, index):
        self.done.append(cell.source)


def run(cells, visit):
    """Run the cells; ``visit(renderer)`` is awaited beside them."""

    async def main():
        renderer = Renderer(asyncio.get_running_loop().create_future())
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        visitor = asyncio.create_task(visit(renderer))
        await asyncio.sleep(0)
        async for _ in renderer._run_all(book):
            await asyncio.sleep(0)
        await visitor
        return renderer.done

    return asyncio.run(asyncio.wait_for(main(), 5))


async def at_once(renderer):
    renderer.visitor.set_result(ASKED)


async def later(renderer):
    while len(renderer.done) < 1:
        await asyncio.sleep(0)
    renderer.done.append("came")
    renderer.visitor.set_result(ASKED)


def test_a_visitor_right_after_the_start_is_told_to_the_kernel():
    """The page is taken before its kernel ran anything; it must still hear what was asked for."""
    assert run(["imports", "view(query_string())"], at_once) == ["imports", "told", "view(query_string())"]
    assert run(["view(query_string())"], at_once) == ["told", "view(query_string())"]


def test_a_warm_page_waits_for_its_visitor_in_front_of_the_cell_that_asks():
    assert run(["imports", "view(query_string())"], later) == ["imports", "came", "told", "view(query_string())"]


@pytest.mark.parametrize("visit", [at_once, later])
def test_a_page_that_never_asks_is_told_at_its_end(visit):
    assert run(["imports", "plain"], visit)[-1] == "told"


def test_cells_of_one_label_in_a_row_are_one_step():
    assert numbered([None, "load", None, "look", "look", None, "load"]) == (
        ["load", "look", "load"],
        [0, 1, 1, 2, 2, 2, 3],
    )
    assert numbered([]) == ([], [])


def test_steps_are_named_by_metadata_comment_or_heading():
    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\n## Loading"),
        nbformat.v4.new_code_cell("import os"),
        nbformat.v4.new_code_cell("# Draw the matrix\nx = 1"),
        nbformat.v4.new_code_cell("y = 1", metadata={"workbench": {"step": "Count"}}),
        nbformat.v4.new_code_cell(""),
        nbformat.v4.new_code_cell("# " + "long " * 30),
    ]
    labels = step_labels(cells)
    assert labels[:5] == [None, "Loading", "Draw the matrix", "Count", None]
    assert len(labels[5]) == 60 and labels[5].endswith("\u2026")
