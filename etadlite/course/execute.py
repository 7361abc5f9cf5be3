"""Run a notebook without a browser; its parameters are checked before anything starts."""

import ast
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from etadlite.base.errors import InputError, never_fatal
from etadlite.base.files import parse_json, read_json, written_whole
from etadlite.course import build
from etadlite.course.notebook import known

CELL_LIMITS = {"smoke": 600}  # seconds per cell; a slow machine may take any time for the others


class Executed(NamedTuple):
    """The files of a run: the notebook with its outputs, the same as HTML, what it measured."""

    notebook: Path
    page: Path
    metrics: Path


class NotebookFailedError(RuntimeError):
    """A cell failed: the message names the notebook, the cell and the error."""


def parameters_in(words: list[str]) -> dict[str, Any]:
    """Read `-p KEY VALUE ...`; values are JSON or plain text."""
    pairs: dict[str, Any] = {}
    while words:
        if words[0] != "-p" or len(words) < 3:
            raise InputError(f'"{" ".join(words)}" is not understood; write -p KEY VALUE')
        _, key, text, *words = words
        try:
            pairs[key] = parse_json(text, key)
        except InputError:
            pairs[key] = text
    return pairs


def run_notebook(
    name: str,
    parameters: Mapping[str, Any],
    *,
    out: Path | None = None,
    cell_limit: float | None = None,
    record: bool = False,
    folder: Path | None = None,
) -> Executed:
    """Execute a notebook with papermill.

    What its cells print appears line by line, and the executed notebook is saved after every cell.
    It runs in its folder: the project's, or `folder`; paths among the `parameters` are relative to
    it. All files of the run go into `out`; None is the notebook's own parameter `out_dir`. A cell
    may take `cell_limit` seconds, by default what `CELL_LIMITS` says. `record` puts what the run
    took on the notebook's card, and the outputs of the profile laptop into the notebook.

    Raises:
        InputError: there is no such notebook or parameter, or the notebook refused a value.
        NotebookFailedError: a cell failed or took too long.
    """
    folder = folder or build.notebooks_folder()
    source = folder / f"{known('notebook', name, build.notebook_names(folder), 0.4)}.ipynb"
    found = papermill.inspect_notebook(source)
    defaults = {parameter: ast.literal_eval(item["default"]) for parameter, item in found.items()}
    for parameter in parameters:
        known("parameter", parameter, defaults)
        value, usual = parameters[parameter], defaults[parameter]
        is_text = isinstance(value, str) or parameter == "interactive"  # true, false or "auto"
        if isinstance(usual, str) and not is_text:
            raise InputError(
                f"{parameter} is {value!r}, but it must be a text: write it in quotes, such as "
                f"-p {parameter} '\"{value}\"'"
            )
    if out is not None:
        if "out_dir" in parameters:
            raise InputError("give --out or the parameter out_dir, not both")
        parameters = {**parameters, "out_dir": str(out.resolve())}
    chosen = {**defaults, **parameters}
    # Always with a parameter, so that the notebook knows that nobody sits in front of it.
    parameters = {"out_dir": chosen["out_dir"], **parameters}
    target = (folder / chosen["out_dir"]).resolve()
    target.mkdir(parents=True, exist_ok=True)
    done = Executed(target / f"{name}.ipynb", target / f"{name}.html", target / "metrics.json")
    done.metrics.unlink(missing_ok=True)  # so that an earlier run's numbers are not taken for ours
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(
            source,
            done.notebook,
            dict(parameters),
            kernel_name="python3",
            cwd=folder,
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            execution_timeout=cell_limit or CELL_LIMITS.get(chosen["profile"]),
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    except (PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
        what = "it took too long" if isinstance(error, CellTimeoutError) else "its process died"
        if isinstance(error, PapermillExecutionError):
            if error.ename == InputError.__name__:
                raise InputError(error.evalue) from None
            what = f"{error.ename}: {error.evalue}"
        cells = nbformat.read(done.notebook, as_version=4).cells
        failed = (c.id for c in cells if c.cell_type == "code" and not build.executed_well(c))
        raise NotebookFailedError(f"{name}, cell {next(failed, 'unknown')}: {what}") from None
    with never_fatal("the page"), written_whole(done.page) as draft:
        exporter = HTMLExporter(template_name="classic")  # shows the pictures' alternative texts
        draft.write_text(exporter.from_filename(str(done.notebook))[0], encoding="utf-8")
    if not done.metrics.exists():
        raise NotebookFailedError(f"{name} wrote no metrics.json into its out_dir")
    if record:
        executed = nbformat.read(done.notebook, as_version=4)
        code = build.code_hash(nbformat.read(source, as_version=4))
        build.record_run(name, folder, read_json(done.metrics, "record of a run"), code)
        build.build_notebook(name, folder, executed if chosen["profile"] == "laptop" else None)
    return done
