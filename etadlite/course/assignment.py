"""Make a notebook's exercises an assignment for nbgrader.

An assignment contains only the exercises and their imports, so that it is graded in seconds. The
course's folder contains `nbgrader_config.py` and `source/NAME`, from which
`nbgrader generate_assignment NAME` makes `release/NAME`, to be handed out. What students hand in
goes to `submitted/STUDENT/NAME`; `nbgrader autograde NAME` gives the points and `nbgrader export`
lists them.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from etadlite.base.errors import InputError
from etadlite.course.source import END, build, is_exercise

POINTS = {"easy": 1, "medium": 2, "harder": 3}
"""By the difficulty in the exercise's heading."""

HEADING = re.compile(r"^### .*\((easy|medium|harder), (\d+) minutes\)$", re.MULTILINE)
CHECK = re.compile(r'\bcheck\("\w+", \w+\)')
CONFIG = """c = get_config()  # nbgrader's settings; run its commands in this folder
c.CourseDirectory.course_id = "etadlite"
c.ClearSolutions.code_stub = {"python": "return ..."}
c.ExecutePreprocessor.kernel_name = "python3"
"""


def assignment(cells: Sequence[NotebookNode]) -> NotebookNode:
    """Return a notebook of the exercises alone, with their solutions, marked for nbgrader.

    Raises:
        InputError: an exercise has no heading with its difficulty and minutes.
    """
    title = cells[0].source.partition("\n")[0]
    made = [new_markdown_cell(f"{title}: exercises", id="title")]
    made += [cell for cell in cells if "assignment" in cell.metadata.tags]
    for text, cell in pairwise(cells):
        if not is_exercise(cell):
            continue
        heading = HEADING.search(text.source)
        if not heading:
            raise InputError(
                f"the exercise {cell.id} needs a heading before it, such as "
                "### 1 · Name (easy, 5 minutes)"
            )
        answer = cell.source.partition(END)[0] + END
        tests = "\n".join(f"assert {call}" for call in CHECK.findall(cell.source))
        made += [
            new_markdown_cell(text.source[heading.start() :], id=f"{cell.id}-text"),
            _graded(cell.id, answer, solution=True, grade=False, locked=False),
            _graded(f"{cell.id}-check", tests, solution=False, grade=True, locked=True),
        ]
        made[-1].metadata.nbgrader.points = POINTS[heading[1]]
    notebook = build([])
    notebook.cells = made
    nbformat.validate(notebook)
    return notebook


def write_assignment(name: str, cells: Sequence[NotebookNode], course: Path) -> Path:
    """Write what nbgrader makes an assignment from, and its configuration."""
    target = course / "source" / name / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    (course / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    nbformat.write(assignment(cells), target)
    return target


def _graded(name: str, code: str, **kind: bool) -> NotebookNode:
    form = {"schema_version": 3, "grade_id": name, "task": False, **kind}
    return new_code_cell(code, id=name, metadata={"nbgrader": form})
