"""Read a notebook's source; build the student's or the solved notebook, or an assignment, from it.

A source is a script in jupytext's percent format, `notebooks/source/NN_name.py`. Every cell has a
name, `# %% name` or `# %% name [markdown]`, which becomes its id. Its tags mean:

- `parameters`: papermill inserts its own cell after this one;
- `solution`: a text that belongs to the solution of the exercise before it;
- `alone`: code that needs no other cell, such as one that shows questions;
- `assignment`: code that only an assignment contains: the imports that its exercises need;
- `slide` starts a slide and `slide-more` continues it; all other cells are on no slide.

A code cell with `# BEGIN SOLUTION` and `# END SOLUTION` is an exercise. It starts with the
student's function, and `check("exercise", function)` follows. The student gets `return ...` instead
of the lines between the marks. The text before an exercise ends in a heading such as
`### 1 · Name (easy, 5 minutes)`, the task and a folded hint.
"""

import re
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from etadlite.base.errors import InputError

SLIDES = {"slide": "slide", "slide-more": "-"}
TAGS = {"parameters", "solution", "alone", "assignment", *SLIDES}
END = "# END SOLUTION"
POINTS = {"easy": 1, "medium": 2, "harder": 3}  # by the difficulty in the exercise's heading
HEADING = re.compile(r"^### .*\((easy|medium|harder), (\d+) minutes\)$", re.MULTILINE)
CHECK = re.compile(r'\bcheck\("(\w+)", (\w+)\)')
# What grades an answer. The student sees the last line alone. Whatever his cells have defined,
# replaced or put into a folder, the checkers are loaded anew, as a new Python would load them.
# (Code in the same process can never be shut out altogether; this stops what is easy to find.)
HIDDEN = """### BEGIN HIDDEN TESTS
import sys
assert sys.modules["builtins"].__import__.__class__ is sys.exit.__class__
for _name in [n for n in sys.modules if n.partition(".")[0] in ("etadlite", "subprocess", "json")]:
    del sys.modules[_name]
import json, subprocess
_ask = "import json, sys; print(json.dumps([sys.path, [str(f) for f in sys.meta_path]]))"
_told = subprocess.run([sys.executable, "-c", _ask], cwd=sys.prefix, capture_output=True)
_path, _finders = json.loads(_told.stdout)
sys.path[:] = [p for p in _path if p]
sys.meta_path[:] = [f for f in sys.meta_path if str(f) in _finders]
from etadlite.course.exercises import check
assert check("{0}", {1}) is True
### END HIDDEN TESTS
check("{0}", {1})"""
CONFIG = """c = get_config()  # nbgrader's settings; run its commands in this folder
c.CourseDirectory.course_id = "etadlite"
c.ClearSolutions.code_stub = {"python": "return ..."}
c.ExecutePreprocessor.kernel_name = "python3"
c.ExecutePreprocessor.timeout = 300  # seconds per cell; a busy machine needs long to import torch
"""
GLOSSARY = re.compile(r"\[([^]]+)\]\(glossary\.md#((?:[^()\s]|\([^()]*\))+)\)")
_MARK = re.compile(r"^ +# (BEGIN|END) SOLUTION\n?", re.MULTILINE)
_FOLDED = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n\n</details>"


def read_source(path: Path) -> list[NotebookNode]:
    """Read the cells of a source.

    Raises:
        InputError: a cell has no name, another cell's name, an unknown tag, or marks of a solution
            that do not pair; or the packages of the extra `teach` are missing.
    """
    try:
        import jupytext
        import nbgrader  # noqa: F401  (for the stubs)
    except ImportError:
        raise InputError(
            "building notebooks needs jupytext and nbgrader; pip install 'etadlite[teach]'"
        ) from None
    cells = jupytext.read(path, fmt="py:percent").cells
    names = [cell.metadata.get("title", "") for cell in cells]
    for number, (name, cell) in enumerate(zip(names, cells, strict=True)):
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise InputError(f'{path}: cell {number} is named "{name}"; write `# %% a-name`')
        if name in names[:number]:
            raise InputError(f"{path}: two cells are named {name}")
        tags = cell.metadata.get("tags", [])
        if unknown := set(tags) - TAGS:
            raise InputError(
                f"{path}: cell {name} has the unknown tag {min(unknown)} "
                f"(there are {', '.join(sorted(TAGS))})"
            )
        marks = _MARK.findall(cell.source)
        if marks != ["BEGIN", "END"] * (len(marks) // 2):
            raise InputError(f"{path}: cell {name}: BEGIN SOLUTION and END SOLUTION do not pair")
        slide = next((SLIDES[tag] for tag in tags if tag in SLIDES), "skip")
        cell.id = name
        cell.metadata = NotebookNode(tags=tags, slideshow=NotebookNode(slide_type=slide))
        if cell.cell_type == "code":
            # The semicolon keeps IPython from showing what check() returns; formatters remove it.
            cell.source = re.sub(r"^check\(.*\)\Z", r"\g<0>;", cell.source, flags=re.MULTILINE)
    return cells


def build(cells: Sequence[NotebookNode], *, solved: bool = False) -> NotebookNode:
    """Build a notebook without outputs: exercises solved, or as stubs with folded solutions."""
    made: list[NotebookNode] = []
    for cell in deepcopy(list(cells)):
        if "assignment" in cell.metadata.tags:
            continue
        if "solution" in cell.metadata.tags and not solved:
            folded = made[-1]
            folded.source = folded.source.replace("</details>", f"{cell.source}\n\n</details>")
            continue
        made.append(cell)
        if is_exercise(cell):
            if not solved:
                text, skip = _FOLDED.format(solution(cell)), {"slideshow": {"slide_type": "skip"}}
                made.append(new_markdown_cell(text, id=f"{cell.id}-solution", metadata=skip))
            cell.source = without_marks(cell.source) if solved else stub(cell)
        if not cell.metadata.tags:
            del cell.metadata["tags"]
    return _notebook(made)


def is_exercise(cell: NotebookNode) -> bool:
    """Return True if a cell contains a solution."""
    return cell.cell_type == "code" and END in cell.source


def stub(cell: NotebookNode) -> str:
    """Return an exercise's code as the student gets it."""
    from nbgrader.preprocessors import ClearSolutions

    clear = ClearSolutions(code_stub={"python": "return ..."}, enforce_metadata=False)
    return clear.preprocess_cell(deepcopy(cell), {"language": "python"}, 0)[0].source


def solution(cell: NotebookNode) -> str:
    """Return the solved function of an exercise: its code up to the end of the solution."""
    return without_marks(cell.source.partition(END)[0] + END).rstrip()


def without_marks(code: str) -> str:
    """Return code without the lines that mark a solution."""
    return _MARK.sub("", code)


def without_glossary(markdown: str) -> str:
    """Return a text without its links to the glossary, for a page that lies elsewhere."""
    return GLOSSARY.sub(r"\1", markdown)


def assignment(cells: Sequence[NotebookNode]) -> NotebookNode:
    """Return a notebook of the exercises and their imports alone, so that it is graded in seconds.

    They have their solutions and are marked for nbgrader. Raises `InputError` if an exercise has no
    heading with its difficulty and minutes.
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
        tests = HIDDEN.format(*CHECK.search(cell.source).groups())
        made += [
            new_markdown_cell(
                without_glossary(text.source[heading.start() :]), id=f"{cell.id}-text"
            ),
            _graded(cell.id, answer, solution=True, grade=False, locked=False),
            _graded(f"{cell.id}-check", tests, solution=False, grade=True, locked=True),
        ]
        made[-1].metadata.nbgrader.points = POINTS[heading[1]]
    return _notebook(made)


def write_assignment(name: str, cells: Sequence[NotebookNode], course: Path) -> Path:
    """Write an assignment, and its configuration, into the folder of nbgrader's course.

    `nbgrader generate_assignment NAME` makes `release/NAME` from it. Students' work goes to
    `submitted/STUDENT/NAME`; `nbgrader autograde NAME` grades it, `nbgrader export` lists points.
    """
    target = course / "source" / name / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    (course / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    nbformat.write(assignment(cells), target)
    return target


def _notebook(cells: list[NotebookNode]) -> NotebookNode:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(notebook)
    return notebook


def _graded(name: str, code: str, **kind: bool) -> NotebookNode:
    form = {"schema_version": 3, "grade_id": name, "task": False, **kind}
    return new_code_cell(code, id=name, metadata={"nbgrader": form})
