"""Make a notebook's exercises an assignment for nbgrader.

    python -m etadlite.course.assignment NAME [--out FOLDER]

The folder is a course as nbgrader knows it: `source/NAME` with solutions and `release/NAME` to hand
out. What students hand in goes to `submitted/STUDENT/NAME`; there, `nbgrader autograde NAME` gives
the points and `nbgrader export` the list. An assignment holds the exercises and what they import,
so that it is graded in seconds.
"""

import argparse
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from etadlite.base.errors import InputError
from etadlite.course.build import known, notebooks_folder
from etadlite.course.source import Cell, build, checked, definitions, read_source, solution

if TYPE_CHECKING:
    from nbgrader.apps import NbGraderAPI

POINTS = {"easy": 1, "medium": 2, "harder": 3}
"""By the difficulty in the exercise's heading."""

HEADING = re.compile(r"^### .*\((easy|medium|harder), (\d+) minutes\)$", re.MULTILINE)

CONFIG = '''"""The course as nbgrader knows it; run its commands in this folder."""

c = get_config()  # noqa: F821
c.CourseDirectory.root = r"{root}"
c.CourseDirectory.course_id = "etadlite"
c.ClearSolutions.code_stub = {{"python": "return ..."}}
c.ExecutePreprocessor.kernel_name = "python3"
'''


def assignment(cells: list[Cell]) -> NotebookNode:
    """A notebook of the exercises alone, with solutions, marked for nbgrader.

    Raises:
        InputError: an exercise has no heading with difficulty and minutes.
    """
    made = build([])
    made.cells = list(_cells(cells))
    nbformat.validate(made)
    return made


def release(name: str, folder: Path, out: Path) -> Path:
    """Write a notebook's assignment, and with nbgrader what is handed out.

    Args:
        name: of the notebook.
        folder: of the notebooks.
        out: the course's folder.

    Returns:
        The notebook to hand out.

    Raises:
        InputError: nbgrader is not installed, or it refuses the assignment.
    """
    target = out / "source" / name / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(assignment(read_source(folder / "source" / f"{name}.py")), target)
    done = grader(out).generate_assignment(name, force=True, create=True)
    if not done["success"]:
        raise InputError(f"nbgrader refused {target}: {done.get('error') or done['log']}")
    return out / "release" / name / f"{name}.ipynb"


def grader(out: Path) -> "NbGraderAPI":
    """Nbgrader for the course in a folder, which is made if need be.

    Raises:
        InputError: nbgrader is not installed.
    """
    try:
        from nbgrader.apps import NbGraderAPI
        from traitlets.config import PyFileConfigLoader
    except ImportError:
        raise InputError("assignments need nbgrader; pip install 'etadlite[teach]'") from None
    out.mkdir(parents=True, exist_ok=True)
    config = out / "nbgrader_config.py"
    config.write_text(CONFIG.format(root=out.resolve()), encoding="utf-8")
    scripts = sysconfig.get_path("scripts")  # nbgrader starts alembic, which lies beside it
    if scripts not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ["PATH"]])
    return NbGraderAPI(config=PyFileConfigLoader(config.name, str(out)).load_config())


def _cells(cells: list[Cell]) -> Iterator[NotebookNode]:
    positions = [i for i, cell in enumerate(cells) if cell.exercise]
    needed = definitions("\n".join(solution(cells[i]) for i in positions), cells)
    title = cells[0].text.partition("\n")[0]
    yield new_markdown_cell(f"{title}: exercises", id="title")
    yield new_code_cell(f"from etadlite.course import check\n{needed}".strip(), id="setup")
    for i in positions:
        cell, text = cells[i], cells[i - 1].text
        heading = HEADING.search(text)
        if not heading:
            raise InputError(
                f"the exercise {cell.name} needs a heading before it, such as "
                "### 1 · Name (easy, 5 minutes)"
            )
        yield new_markdown_cell(text[heading.start() :], id=f"{cell.name}-text")
        answer = solution(cell, marked=True)
        yield new_code_cell(answer, id=cell.name, metadata=_graded(cell.name, solution=True))
        tests = "\n".join(f'assert check("{name}", {what})' for name, what in checked(cell))
        points = _graded(f"{cell.name}-check", points=POINTS[heading[1]])
        yield new_code_cell(tests, id=f"{cell.name}-check", metadata=points)


def _graded(name: str, *, solution: bool = False, points: int | None = None) -> dict:
    form = {"schema_version": 3, "grade_id": name, "solution": solution, "task": False}
    form |= {"grade": points is not None, "locked": points is not None}
    if points is not None:
        form["points"] = points
    return {"nbgrader": form}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make an assignment from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("runs/assignments"), metavar="FOLDER")
    given = parser.parse_args(arguments)
    try:
        folder = notebooks_folder()
        print(release(known(given.name, folder), folder, given.out))
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
