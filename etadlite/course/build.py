"""Build notebooks, solved notebooks and assignments from the sources.

    python -m etadlite.course.build [NAME ...]

writes `notebooks/NAME.ipynb`, the student's notebook. It keeps the outputs of a recorded run until
its code changes; `--outputs EXECUTED.ipynb` takes the outputs of another run. A cell with the tag
`alone` needs no other cell, and is executed whenever the notebook is written. `--solutions FOLDER`
writes the solved notebooks and the module of a student who has solved everything, and
`--assignments FOLDER` the exercises for nbgrader.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_notebook

import etadlite
from etadlite.base.errors import InputError
from etadlite.base.files import read_json, write_json, written_whole
from etadlite.course.notebook import PROFILES, contents, known
from etadlite.course.parts import FILE, HEAD, PARTS, with_part
from etadlite.course.source import (
    CHECK,
    build,
    is_exercise,
    read_source,
    solution,
    write_assignment,
)

LARGEST = 650_000  # bytes of a notebook with its outputs
# What occurs only in paths of one machine.
MACHINE = re.compile(r"/(work|tmp|home|root|Users|mnt|usr|opt|var)/|[A-Z]:\\|site-packages")
# Marks the place of the card in a source; it may name the data set of the profile `full`.
CARD = re.compile(r"<!-- card(?:, full: (.+?))? -->")


def notebooks_folder() -> Path:
    """Return the folder of notebooks to work in: that of a course here, or the repository's.

    Raises:
        InputError: there is none.
    """
    here = Path.cwd()
    beside = Path(etadlite.__file__).resolve().parents[1] / "notebooks"
    for folder in (here / "notebooks", here, beside):
        if (folder / "runtimes.json").exists():
            return folder
    raise InputError(
        "there are no notebooks here: etadlite course DIR writes them; go to DIR and try again"
    )


def notebook_names(folder: Path) -> list[str]:
    """Return the names of the notebooks that have a source, in order."""
    return sorted(path.stem for path in (folder / "source").glob("[0-9]*.py"))


def build_notebook(name: str, folder: Path, executed: NotebookNode | None = None) -> Path:
    """Write the student's notebook into the folder of the notebooks.

    It gets the outputs of the run `executed`. None keeps its own, if its code is still the same.

    Raises:
        InputError: `executed` is a run of other code, or its outputs cannot be committed.
    """
    target = folder / f"{name}.ipynb"
    notebook = with_card(name, folder)
    if executed is None and target.exists():
        old = nbformat.read(target, as_version=4)
        if old.metadata.get("etadlite", {}).get("code") == code_hash(notebook):
            executed = old
    if executed is not None:
        take_outputs(notebook, executed)
    text = nbformat.writes(notebook) + "\n"
    if len(text.encode()) > LARGEST:
        raise InputError(f"{target.name} would take {len(text):,} bytes, at most {LARGEST:,} fit")
    with written_whole(target) as draft:
        draft.write_text(text, encoding="utf-8")
    return target


def with_card(name: str, folder: Path, *, solved: bool = False) -> NotebookNode:
    """Return a notebook without outputs, its card filled in."""
    notebook = build(read_source(folder / "source" / f"{name}.py"), solved=solved)
    put_card(notebook.cells, read_json(folder / "runtimes.json", "record of runs").get(name, {}))
    return notebook


def solved_module(folder: Path) -> str:
    """Return the text of `my_etad.py` with the solutions of all notebooks."""
    text = HEAD
    for name in notebook_names(folder):
        for cell in filter(is_exercise, read_source(folder / "source" / f"{name}.py")):
            exercise = CHECK.search(cell.source)[1]
            if exercise in PARTS:
                text = with_part(text, exercise, solution(cell) + "\n")
    return text


def code_hash(notebook: NotebookNode) -> str:
    """Return a hash that changes with a notebook's code, except in cells that run alone."""
    codes = [c.source for c in notebook.cells if c.cell_type == "code" and not runs_alone(c)]
    return hashlib.sha256(json.dumps(codes).encode()).hexdigest()[:16]


def take_outputs(notebook: NotebookNode, executed: NotebookNode) -> None:
    """Give a notebook the outputs of its executed copy, and the hash of its code.

    jupytext would match cells by similar text; here an output never stands below other code. Cells
    that run alone are executed here.

    Raises:
        InputError: the copy has other code, a cell failed or was not reached, or an output contains
            a path of this machine.
    """
    ran = {cell.id: cell for cell in executed.cells}
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        done = executed_alone(cell) if runs_alone(cell) else ran.get(cell.id)
        if done is None or done.source != cell.source:
            raise InputError(f"cell {cell.id} was executed with other code; build, then run again")
        if not executed_well(done):
            raise InputError(f"cell {cell.id} was not executed to its end; run the notebook again")
        cell.execution_count, cell.outputs = count, done.outputs
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            text = json.dumps(without_pictures(output))
            if found := MACHINE.search(text):
                near = text[max(found.start() - 60, 0) : found.end() + 40]
                raise InputError(f"an output of cell {cell.id} names this machine: ...{near}...")
    notebook.metadata["etadlite"] = {"code": code_hash(notebook)}


def runs_alone(cell: NotebookNode) -> bool:
    """Return True if a code cell needs no other cell."""
    return "alone" in cell.metadata.get("tags", [])


def executed_alone(cell: NotebookNode) -> NotebookNode:
    """Return a copy of a code cell, executed by a Python of its own."""
    notebook = new_notebook(cells=[deepcopy(cell)])
    quiet = ["--IPKernelApp.log_level=ERROR"]
    patient = {"startup_timeout": 300}  # seconds; a busy machine needs long to start Python
    NotebookClient(notebook, kernel_name="python3", extra_arguments=quiet, **patient).execute()
    return notebook.cells[0]


def executed_well(cell: NotebookNode) -> bool:
    """Return True if a code cell ran to its end without an error."""
    failed = any(output.output_type == "error" for output in cell.outputs)
    return cell.execution_count is not None and not failed


def without_pictures(output: NotebookNode) -> dict:
    """Return the texts of an output."""
    content = output.get("data", output)
    return {kind: value for kind, value in content.items() if not kind.startswith("image/")}


def card_table(runtimes: dict[str, Any], full: str | None = None) -> str:
    """Return a card in Markdown from records by profile; `full` names the data of that profile."""
    lines = ["| profile | data | minutes | memory | what to expect |", "|---|---|---|---|---|"]
    for profile, (size, *_) in PROFILES.items():
        if run := runtimes.get(profile):
            cells = [
                run["data"],
                f"{run['minutes']:.1f} ({run['device']})",
                f"{run['memory_gib']:.1f} GiB",
                ", ".join(f"{name}: {_range(*ends)}" for name, ends in run["results"].items()),
            ]
        else:
            data = full if full and profile == "full" else contents(size)
            cells = [data, *["not recorded yet"] * 3]
        lines.append(f"| {' | '.join([f'`{profile}`', *cells])} |")
    return "\n".join(lines)


def put_card(cells: Sequence[dict[str, Any]], runtimes: dict[str, Any]) -> None:
    """Replace the mark in a notebook's cells by the table, in place."""
    for cell in cells:
        cell["source"] = CARD.sub(lambda mark: card_table(runtimes, mark[1]), cell["source"])


def record_run(name: str, folder: Path, metrics: dict[str, Any], code: str) -> None:
    """Add the metrics that `Run.finish` wrote to the record; `code` is the hash of the code.

    Runs of the same code on the same kind of device and data widen the ranges; another run replaces
    them. Raises `InputError` if the run used results of an earlier one: its minutes say nothing.
    """
    if metrics.get("kept"):
        raise InputError(
            f"the run kept {', '.join(metrics['kept'])} from an earlier one; record a run that "
            "started with an empty out_dir"
        )
    threads = metrics["threads"]
    new = {
        "runs": 1,
        "data": metrics["data"],
        "device": f"{metrics['device']}, {threads} thread{'s' * (threads != 1)}",
        "minutes": metrics["minutes"],
        "memory_gib": metrics["memory_gib"] or 0.0,
        "results": {result: [value, value] for result, value in metrics["results"].items()},
        "code": code,
    }
    book = folder / "runtimes.json"
    runtimes = read_json(book, "record of runs")
    profiles = runtimes.setdefault(name, {})
    old = profiles.get(metrics["profile"])
    if old and all(old[same] == new[same] for same in ("code", "device", "data")):
        new["runs"] += old["runs"]
        for measure in ("minutes", "memory_gib"):
            new[measure] = max(old[measure], new[measure])
        for result, values in new["results"].items():
            both = [*old["results"].get(result, []), *values]
            new["results"][result] = [min(both), max(both)]
    profiles[metrics["profile"]] = new
    write_json(book, dict(sorted(runtimes.items())))


def _range(least: float, most: float) -> str:
    return " to ".join(dict.fromkeys((f"{least:.3g}", f"{most:.3g}")))


def main(arguments: Sequence[str] | None = None) -> None:
    """Build notebooks from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: every notebook")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--outputs", type=Path, metavar="EXECUTED.ipynb", help="of one notebook")
    kind.add_argument("--solutions", type=Path, metavar="FOLDER", help="for solved notebooks")
    kind.add_argument("--assignments", type=Path, metavar="FOLDER", help="for nbgrader's course")
    given = parser.parse_args(arguments)
    try:
        folder = notebooks_folder()
        if given.outputs and len(given.names) != 1:
            raise InputError("--outputs belongs to one notebook; give its name")
        executed = nbformat.read(given.outputs, as_version=4) if given.outputs else None
        every = notebook_names(folder)
        names = [known("notebook", Path(name).stem, every, 0.4) for name in given.names]
        for name in names or every:
            if given.assignments:
                cells = read_source(folder / "source" / f"{name}.py")
                target = write_assignment(name, cells, given.assignments)
            elif given.solutions:
                target = given.solutions / f"{name}.ipynb"
                target.parent.mkdir(parents=True, exist_ok=True)
                nbformat.write(with_card(name, folder, solved=True), target)
            else:
                target = build_notebook(name, folder, executed)
            print(target)
        if given.solutions:
            (given.solutions / FILE).write_text(solved_module(folder), encoding="utf-8")
            print(given.solutions / FILE)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
