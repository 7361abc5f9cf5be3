"""Run a notebook without a browser, with its parameters checked before anything starts."""

import ast
import difflib
import json
import logging
import sys
from collections.abc import Mapping
from copy import deepcopy
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from etadlite.base.errors import InputError
from etadlite.base.files import written_whole
from etadlite.course.build import build_notebook, code_hash, known, notebooks_folder
from etadlite.course.card import record_run

CELL_LIMITS = {"smoke": 600, "laptop": 1800}
"""Seconds a cell may take, by profile; no limit for others."""


class Executed(NamedTuple):
    """What a run left, all in one folder.

    Attributes:
        notebook: with its outputs.
        page: the same as HTML.
        metrics: what the notebook measured, JSON.
    """

    notebook: Path
    page: Path
    metrics: Path


class NotebookFailedError(RuntimeError):
    """A cell failed: the message names the notebook, the cell and what it said."""


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

    Args:
        name: of the notebook, such as 00_quickstart.
        parameters: for its parameters cell; paths are relative to the notebooks' folder.
        out: folder for everything that the run writes, relative to the working directory; None is
            the notebook's own parameter `out_dir`.
        cell_limit: seconds a cell may take; None is what `CELL_LIMITS` says for the profile.
        record: put what the run took on the notebook's card, and where the profile is laptop, its
            outputs into the notebook.
        folder: of the notebooks, where they run; None: the project's.

    Returns:
        The files of the run.

    Raises:
        InputError: there is no such notebook or parameter, or the notebook refused a value.
        NotebookFailedError: a cell failed or took too long.
    """
    folder = folder or notebooks_folder()
    source = folder / f"{known(name, folder)}.ipynb"
    defaults = _defaults(source)
    for parameter in parameters:
        if parameter not in defaults:
            near = difflib.get_close_matches(parameter, defaults, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise InputError(
                f'{name} has no parameter "{parameter}"{hint} (it has {", ".join(defaults)})'
            )
    if out is not None:
        if "out_dir" in parameters:
            raise InputError("give --out or the parameter out_dir, not both")
        parameters = {**parameters, "out_dir": str(out.resolve())}
    chosen = {**defaults, **parameters}
    target = (folder / chosen["out_dir"]).resolve()
    target.mkdir(parents=True, exist_ok=True)
    done = Executed(*(target / file for file in (f"{name}.ipynb", f"{name}.html", "metrics.json")))
    done.metrics.unlink(missing_ok=True)  # it shall be this run's
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
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(error.evalue) from None
        where = _failed_cell(done.notebook)
        raise NotebookFailedError(f"{name}, cell {where}: {error.ename}: {error.evalue}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        what = "it took too long" if isinstance(error, CellTimeoutError) else "its process died"
        raise NotebookFailedError(f"{name}, cell {_failed_cell(done.notebook)}: {what}") from None
    _write_page(done)
    if not done.metrics.exists():
        raise NotebookFailedError(f"{name} wrote no metrics.json into its out_dir")
    if record:
        executed = nbformat.read(done.notebook, as_version=4)
        code = code_hash(nbformat.read(source, as_version=4))
        record_run(name, folder, json.loads(done.metrics.read_text(encoding="utf-8")), code)
        build_notebook(name, folder, executed if chosen["profile"] == "laptop" else None)
    return done


def _defaults(source: Path) -> dict[str, Any]:
    """The parameters of a notebook with their values."""
    found = papermill.inspect_notebook(source)
    return {name: ast.literal_eval(item["default"]) for name, item in found.items()}


def _failed_cell(executed: Path) -> str:
    """The name of the cell that a run ended in."""
    for cell in nbformat.read(executed, as_version=4).cells:
        if cell.cell_type == "code" and (
            cell.execution_count is None or any(o.output_type == "error" for o in cell.outputs)
        ):
            return cell.id
    return "unknown"


def described(notebook: NotebookNode) -> NotebookNode:
    """A copy whose pictures carry their alternative texts as HTML, which nbconvert passes over."""
    copy = deepcopy(notebook)
    for cell in copy.cells:
        for output in cell.get("outputs", ()):
            for kind in [k for k in output.get("data", {}) if k.startswith("image/")]:
                if alt := output.metadata.get(kind, {}).get("alt"):
                    source = f"data:{kind};base64,{''.join(output.data[kind].split())}"
                    output.data["text/html"] = f'<img alt="{escape(alt)}" src="{source}">'
                    del output.data[kind]
    return copy


def _write_page(done: Executed) -> None:
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_notebook_node(
        described(nbformat.read(done.notebook, as_version=4))
    )
    with written_whole(done.page) as partial:
        partial.write_text(page, encoding="utf-8")
