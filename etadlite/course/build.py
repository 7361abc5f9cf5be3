"""Write the notebooks from their sources.

    python -m etadlite.course.build [NAME ...] [--outputs EXECUTED.ipynb]

writes `notebooks/NAME.ipynb`, the student's, and `notebooks/solutions/NAME.ipynb`. The student's
carries the outputs of a recorded run; they are kept until its code changes.
"""

import argparse
import difflib
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

import etadlite
from etadlite.base.errors import InputError
from etadlite.base.files import written_whole
from etadlite.course.card import put_card
from etadlite.course.source import build, read_source

LARGEST = 500_000
"""Bytes of a notebook with its outputs."""

MACHINE = re.compile(r"/(work|tmp|home|root|Users|mnt|usr|opt|var)/|[A-Z]:\\|site-packages")
"""What only a machine's own paths contain."""


def notebooks_folder() -> Path:
    """The project's notebooks.

    Raises:
        InputError: the package was installed without them.
    """
    folder = Path(etadlite.__file__).resolve().parents[1] / "notebooks"
    if not (folder / "runtimes.json").exists():
        raise InputError(
            f"{folder} is missing: the notebooks are no part of the installed package; "
            "clone the project and install it with pip install -e ."
        )
    return folder


def notebook_names(folder: Path) -> list[str]:
    """The notebooks that have a source, in order."""
    return sorted(path.stem for path in (folder / "source").glob("[0-9]*.py"))


def known(name: str, folder: Path) -> str:
    """The name itself.

    Raises:
        InputError: no notebook is named so.
    """
    names = notebook_names(folder)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise InputError(f'there is no notebook "{name}"{hint} (there are {", ".join(names)})')
    return name


def build_notebook(name: str, folder: Path, executed: NotebookNode | None = None) -> None:
    """Write a notebook and its solutions.

    Args:
        name: of the notebook.
        folder: of the notebooks.
        executed: where the outputs come from; None keeps those that fit the code.

    Raises:
        InputError: `executed` is a run of other code, or its outputs are not fit to be committed.
    """
    cells = read_source(folder / "source" / f"{name}.py")
    book = json.loads((folder / "runtimes.json").read_text(encoding="utf-8"))
    student, solutions = build(cells), build(cells, "solved")
    target = folder / f"{name}.ipynb"
    if executed is not None:
        take_outputs(student, executed)
    elif target.exists():
        old = nbformat.read(target, as_version=4)
        if old.metadata.get("etadlite", {}).get("code") == code_hash(student):
            take_outputs(student, old)
    for notebook, path in ((student, target), (solutions, folder / "solutions" / target.name)):
        put_card(notebook.cells, book.get(name, {}))
        text = nbformat.writes(notebook) + "\n"
        if len(text.encode()) > LARGEST:
            raise InputError(f"{path.name} takes {len(text):,} bytes: {_largest(notebook)}")
        path.parent.mkdir(exist_ok=True)
        with written_whole(path) as partial:
            partial.write_text(text, encoding="utf-8")


def code_hash(notebook: NotebookNode) -> str:
    """What tells one notebook's code from another's."""
    codes = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(codes).encode()).hexdigest()[:16]


def take_outputs(notebook: NotebookNode, executed: NotebookNode) -> None:
    """Give a notebook the outputs of its executed copy, counted anew, and the hash of its code.

    Raises:
        InputError: the copy has other code, a cell failed or was not reached, or an output names
            the machine.
    """
    by_name = {cell.id: cell for cell in executed.cells}
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        done = by_name.get(cell.id)
        if done is None or done.source != cell.source:
            raise InputError(f"cell {cell.id} was executed with other code; build, then run again")
        if done.execution_count is None:
            raise InputError(f"cell {cell.id} was not executed; its outputs can't be recorded")
        cell.execution_count = count
        cell.outputs = [_bare(output, count) for output in done.outputs]
        text = json.dumps([_words(output) for output in cell.outputs])
        if found := MACHINE.search(text):
            near = text[max(found.start() - 60, 0) : found.end() + 40]
            raise InputError(f"an output of cell {cell.id} names this machine: ...{near}...")
        if any(output.output_type == "error" for output in cell.outputs):
            raise InputError(f"cell {cell.id} failed; its outputs can't be recorded")
    notebook.metadata["etadlite"] = {"code": code_hash(notebook)}


def _bare(output: NotebookNode, count: int) -> NotebookNode:
    output = nbformat.from_dict(output)
    if output.output_type == "execute_result":
        output.execution_count = count
    return output


def _words(output: NotebookNode) -> Any:
    """An output without its pictures."""
    if "data" not in output:
        return output
    return {kind: value for kind, value in output.data.items() if not kind.startswith("image/")}


def _largest(notebook: NotebookNode) -> str:
    sizes = {cell.id: len(json.dumps(cell.get("outputs", []))) for cell in notebook.cells}
    worst = sorted(sizes, key=sizes.__getitem__)[:-4:-1]
    return ", ".join(f"{name} {sizes[name]:,}" for name in worst) + f"; at most {LARGEST:,}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Build notebooks from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: every notebook")
    parser.add_argument("--outputs", type=Path, metavar="EXECUTED.ipynb", help="of one notebook")
    given = parser.parse_args(arguments)
    try:
        folder = notebooks_folder()
        if given.outputs and len(given.names) != 1:
            raise InputError("--outputs belongs to one notebook; give its name")
        names = [known(Path(name).stem, folder) for name in given.names] or notebook_names(folder)
        executed = nbformat.read(given.outputs, as_version=4) if given.outputs else None
        for name in names:
            build_notebook(name, folder, executed)
            print(folder / f"{name}.ipynb")
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
