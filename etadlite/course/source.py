"""One source makes the student's notebook, the solutions, and what a course hands out.

A source is a script in jupytext's percent format, `notebooks/source/NN_name.py`. Every cell has a
name: `# %% name`, or `# %% name [markdown]`. Its tags say what a cell is beyond its kind:

- `parameters`: the cell that papermill adds its own after;
- `solution`: a text that belongs to the solution of the exercise before it;
- `slide` begins a slide, `slide-more` continues it; other cells are on no slide.

A cell that holds `# BEGIN SOLUTION` and `# END SOLUTION` is an exercise. What stands between them
is for the student to find, who gets `return ...`. The text before it ends in a heading such as
`### 1 · Name (easy, 5 minutes)`, the task and a folded hint.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from etadlite.base.errors import InputError

Kind = Literal["student", "solved", "both"]
"""The exercises as stubs with folded solutions, solved, or each first as a stub, then solved."""

SLIDES = {"slide": "slide", "slide-more": "-"}
TAGS = {"parameters", "solution", *SLIDES}

_BEGIN = re.compile(r"^( +)# BEGIN SOLUTION$")
_END = re.compile(r"^ *# END SOLUTION$")
_CHECK = re.compile(r"^check\(.*\)$", re.MULTILINE)


class Cell(NamedTuple):
    """A cell of a source.

    Attributes:
        name: unique in the notebook.
        markdown: whether it is a text.
        text: what it holds.
        tags: what it is; see the module.
    """

    name: str
    markdown: bool
    text: str
    tags: tuple[str, ...]

    @property
    def exercise(self) -> bool:
        """Whether it holds a solution."""
        return not self.markdown and bool(_regions(self))


def read_source(path: Path) -> list[Cell]:
    """The cells of a source.

    Raises:
        InputError: a cell has no name or one that another has, an unknown tag, or marks of a
            solution that do not pair.
    """
    try:
        import jupytext
    except ImportError:
        raise InputError(
            "building notebooks needs jupytext; pip install 'etadlite[teach]'"
        ) from None
    cells: list[Cell] = []
    for number, found in enumerate(
        jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent").cells
    ):
        name = found.metadata.get("title", "")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise InputError(f'{path}: cell {number} is named "{name}"; write `# %% a-name`')
        if name in {cell.name for cell in cells}:
            raise InputError(f"{path}: two cells are named {name}")
        tags = tuple(found.metadata.get("tags", ()))
        if unknown := set(tags) - TAGS:
            raise InputError(
                f"{path}: cell {name} has the unknown tag {min(unknown)} "
                f"(there are {', '.join(sorted(TAGS))})"
            )
        cell = Cell(name, found.cell_type == "markdown", found.source, tags)
        try:
            _regions(cell)
        except ValueError as error:
            raise InputError(f"{path}: cell {name}: {error}") from None
        cells.append(cell)
    return cells


def build(cells: list[Cell], kind: Kind = "student") -> NotebookNode:
    """The notebook that a source stands for, without outputs."""
    made = [new for cell, note in _with_notes(cells, kind) for new in _build(cell, note, kind)]
    notebook = new_notebook(
        cells=made,
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    return notebook


def stub(cell: Cell) -> str:
    """An exercise as it is handed out."""
    lines = cell.text.splitlines()
    for begin, end, text in reversed(_regions(cell)):
        lines[begin : end + 1] = [text]
    return _silent("\n".join(lines))


def solved(cell: Cell) -> str:
    """An exercise with its solution."""
    return _silent("\n".join(line for line in cell.text.splitlines() if not _is_mark(line)))


def solution(cell: Cell, *, marked: bool = False) -> str:
    """The statements of an exercise that hold its solution, with its marks if wanted."""
    lines = cell.text.splitlines()
    regions = _regions(cell)
    kept = []
    for node in ast.parse(cell.text).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) - 1
        # A comment that ends a body, such as the END mark, is no part of the tree.
        ends = [end + 1 for begin, end, _ in regions if first <= end and begin < node.end_lineno]
        if ends:
            kept += [*lines[first : max(node.end_lineno, *ends)], ""]
    return "\n".join(line for line in kept if marked or not _is_mark(line)).strip()


def checked(cell: Cell) -> list[tuple[str, str]]:
    """What an exercise gives to its checkers: (exercise, expression)."""
    calls = [
        node
        for node in ast.walk(ast.parse(cell.text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check"
    ]
    return [(ast.literal_eval(call.args[0]), ast.unparse(call.args[1])) for call in calls]


def definitions(code: str, cells: list[Cell]) -> str:
    """What a piece of code needs of the cells before it: imports, functions and classes.

    Args:
        code: such as a solution.
        cells: those before it; solutions to exercises among them do not count.

    Returns:
        The statements, imports first.
    """
    given: dict[str, tuple[ast.stmt, str]] = {}
    for cell in cells:
        if cell.markdown or cell.exercise:
            continue
        for node in ast.parse(cell.text).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    one = type(node)(**{**vars(node), "names": [alias]})
                    given[name] = (one, ast.unparse(one))
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                given[node.name] = (node, ast.get_source_segment(cell.text, node))
    needed: dict[str, tuple[ast.stmt, str]] = {}
    waiting = [ast.parse(code)]
    while waiting:
        for node in ast.walk(waiting.pop()):
            name = getattr(node, "id", None)
            if isinstance(node, ast.Name) and name in given and name not in needed:
                needed[name] = given[name]
                waiting.append(given[name][0])
    kept = sorted(
        needed.values(), key=lambda one: isinstance(one[0], ast.FunctionDef | ast.ClassDef)
    )
    return "\n".join(dict.fromkeys(text for _, text in kept))


def _build(cell: Cell, note: str, kind: Kind) -> Iterator[NotebookNode]:
    metadata: dict[str, Any] = {}
    slide = next((SLIDES[tag] for tag in cell.tags if tag in SLIDES), "skip")
    metadata["slideshow"] = {"slide_type": slide}
    if "parameters" in cell.tags:
        metadata["tags"] = ["parameters"]
    if cell.markdown:
        yield new_markdown_cell(cell.text, id=cell.name, metadata=metadata)
        return
    if not cell.exercise:
        yield new_code_cell(_silent(cell.text), id=cell.name, metadata=metadata)
        return
    if kind != "solved":
        yield new_code_cell(stub(cell), id=cell.name, metadata=metadata)
    if kind != "student":
        identity = cell.name if kind == "solved" else f"{cell.name}-solved"
        yield new_code_cell(solved(cell), id=identity, metadata=metadata)
    else:
        text = f"<details><summary>Solution</summary>\n\n```python\n{solution(cell)}\n```\n\n"
        text += f"{note}\n\n" if note else ""
        yield new_markdown_cell(
            f"{text}</details>",
            id=f"{cell.name}-solution",
            metadata={"slideshow": {"slide_type": "skip"}},
        )


def _with_notes(cells: list[Cell], kind: Kind) -> Iterator[tuple[Cell, str]]:
    """Each cell with the text of its solution; those texts alone only where nothing is folded."""
    for cell, following in zip(cells, [*cells[1:], None], strict=False):
        note = following.text if following and "solution" in following.tags else ""
        if "solution" not in cell.tags or kind != "student":
            yield cell, note


def _regions(cell: Cell) -> list[tuple[int, int, str]]:
    """The marked regions of a code cell: first line, last line, stub."""
    if cell.markdown:
        return []
    regions: list[tuple[int, int, str]] = []
    opened = None
    for number, line in enumerate(cell.text.splitlines()):
        if begins := _BEGIN.match(line):
            if opened:
                raise ValueError("BEGIN SOLUTION within a solution")
            opened = number, begins[1] + "return ..."
        elif _END.match(line):
            if not opened:
                raise ValueError("END SOLUTION without BEGIN SOLUTION")
            regions.append((opened[0], number, opened[1]))
            opened = None
    if opened:
        raise ValueError("BEGIN SOLUTION without END SOLUTION")
    return regions


def _is_mark(line: str) -> bool:
    return bool(_BEGIN.match(line) or _END.match(line))


def _silent(code: str) -> str:
    """A checker prints its verdict; a semicolon, which formatters take away, hides its value."""
    return _CHECK.sub(lambda call: f"{call[0]};", code)
