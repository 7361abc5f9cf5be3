"""The student's own module, `my_etad.py`: the functions that have passed their checkers.

A notebook saves a right answer there as plain text, and the cells below use it in place of the
package's function. Whoever skips an exercise goes on with the package's function in `PARTS`. A
graded run neither reads nor runs the file.
"""

import ast
import inspect
import math
import textwrap
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from etadlite.base.errors import InputError
from etadlite.base.files import read_text, written_whole
from etadlite.base.segments import tiou
from etadlite.course.exercises import fault_of
from etadlite.course.exercises.form import as_tensor
from etadlite.detector import roi
from etadlite.model import SequentialEncoder
from etadlite.sampling.proposals import random_proposals
from etadlite.sampling.snippets import SnippetStrategy, grid_snippets
from etadlite.training.losses import balanced_bce
from etadlite.training.targets import matched_actions

FILE = "my_etad.py"
HEAD = '''"""My ETAD: what I have written in the course, part by part."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from etadlite.base.segments import tiou
'''
"""What a new file begins with; a function finds these names, and those that it makes itself."""


def roi_weights(segments: Tensor, bins: int, cells: int) -> Tensor:
    """Return RoIAlign's weights [P, bins, cells] of segments [P, 2], by the package."""
    return roi.roi_weights(segments, cells, bins, aligned=False)


def three_passes(
    encoder: nn.Module,
    snippets: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    chunk_size: int,
    picked: Tensor,
    weights: Tensor,
) -> Tensor:
    """Give encoder and detector their gradient in the memory of a chunk, by the package.

    `loss_of` maps features [M, C] to a number; `picked` [n] are the snippets of M that carry a
    gradient, with `weights` [n]. Returns the loss.
    """
    chances = weights.new_zeros(1, len(snippets))
    chances[0, picked] = 1 / weights
    strategy = SnippetStrategy(lambda *_: picked[None], inclusion=lambda *_: chances)
    share = len(picked) / len(snippets)
    sequential = SequentialEncoder(encoder, chunk_size, strategy, share, rescale=True)
    loss = loss_of(sequential(snippets[None])[0].T)
    loss.backward()
    return loss.detach()


def fuse(scores: Tensor, classes: Tensor, k: int) -> Tensor:
    """Return scores [S, k] of segments' scores [S] with the k best of classes [K]'s."""
    return scores[:, None] * classes.topk(k).values


def average_precision(scores: Tensor, overlaps: Tensor, threshold: float) -> float:
    """Return the average precision of detections [P] whose tIoU with A actions is [P, A]."""
    free, right = overlaps.clone(), np.zeros(len(scores), bool)
    for place, row in enumerate(scores.argsort(descending=True, stable=True).tolist()):
        best = int(free[row].argmax())
        right[place] = free[row, best] >= threshold
        if right[place]:
            free[:, best] = -1
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    peaks = np.maximum.accumulate(precision[::-1])[::-1]
    return float(peaks[right].sum() / overlaps.shape[1])


def merge_windows(
    segments: Tensor, scores: Tensor, sigma: float, voting: float, least: float
) -> Tensor:
    """Return merged detections [K, 4]: number of the pick, start, end, lowered score; best first.

    The K picks are those of segments [P, 2] with scores [P].
    """
    left, rows = scores.clone(), []
    while len(left) and left.max() >= least:
        pick = int(left.argmax())
        fits = tiou(segments[pick], segments)
        weights = scores * (fits >= voting)
        start, end = (weights / weights.sum() @ segments).tolist()
        rows.append([pick, start, end, float(left[pick])])
        left = left * torch.exp(-(fits**2) / sigma)
        left[[int(row[0]) for row in rows]] = -1
    return torch.tensor(rows, dtype=scores.dtype).view(-1, 4)


def seconds(text: str) -> float:
    """Return the seconds of a time as seconds, mm:ss or hh:mm:ss; NaN if it can mean two things."""
    first, *others = map(float, text.split(":"))
    total = first
    for part in others:
        total = 60 * total + part
    return total if all(part < 60 for part in others) else math.nan


class Part(NamedTuple):
    """What stands in where an exercise was skipped."""

    package: Callable  # with the student's arguments
    name: str = ""  # of the package's function, if it does not do exactly the same
    is_tensor: bool = True  # the answer is one tensor; else the cells take it as it is


PARTS = {
    "roi_weights": Part(roi_weights),
    "matched_actions": Part(matched_actions),
    "balanced_bce": Part(balanced_bce, is_tensor=False),
    "three_passes": Part(three_passes, is_tensor=False),
    "stratified": Part(grid_snippets, "grid"),
    "with_positives": Part(random_proposals, "random proposals"),
    "fuse": Part(fuse),
    "average_precision": Part(average_precision, is_tensor=False),
    "merge_windows": Part(merge_windows),
    "seconds": Part(seconds, is_tensor=False),
}  # exercise, which is also the name of the function -> its part


def part_of(file: Path, exercise: str, attempt: Callable | None = None) -> tuple[Callable, str]:
    """Return the function that the cells below use, and one line that says which one it is.

    An `attempt` that passes the checker is saved in the student's `file` first. The file's function
    is used if it passes; else the package's.
    """
    own, note, since = None, "", ""
    if attempt is not None:
        own, note = _saved(file, exercise, attempt)
    if own is None:
        try:
            own, since = load_part(file, exercise), ", as it was saved before"
        except InputError as error:
            note = note or str(error)
        if own is not None and (fault := fault_of(exercise, own)):
            own, note = None, note or f"the one in {file.name} does not pass: {fault}"
    if own is not None:
        line = f"{exercise}: the cells below use your function from {file.name}{since}."
        return _read(own, exercise), line
    part = PARTS[exercise]
    name = f" ({part.name})" if part.name else ""
    because = f"; {note.rstrip('.')}" if note else ""
    line = f"{exercise}: the cells below use the package's function{name}{because}."
    return part.package, line


def _saved(file: Path, exercise: str, attempt: Callable) -> tuple[Callable | None, str]:
    """Save an attempt that passes; return the saved function, or None and why it is not saved."""
    try:
        code = source_of(attempt, exercise)
        text = with_part(read_text(file, "your module") if file.exists() else HEAD, exercise, code)
        own = _functions(text, file)[exercise]
    except InputError as error:
        return None, f"yours is not saved: {error}" if not fault_of(exercise, attempt) else ""
    if fault := fault_of(exercise, own):
        if fault_of(exercise, attempt):
            return None, ""  # the checker has said what is wrong
        return None, (
            f"yours is not saved, because alone in {file.name} it does not pass "
            f"({fault.rstrip('.')}); define what it needs within it"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as draft:
        draft.write_text(text, encoding="utf-8")
    return own, ""


def source_of(function: Callable, name: str) -> str:
    """Return the source of a function, `def NAME(...)` and all that belongs to it.

    Raises:
        InputError: it was not written as a function of this name.
    """
    try:
        code = textwrap.dedent(inspect.getsource(inspect.unwrap(function))).strip() + "\n"
        (found,) = ast.parse(code).body
    except (OSError, TypeError, SyntaxError, ValueError):
        found = None
    if not isinstance(found, ast.FunctionDef) or found.name != name:
        raise InputError(f"write it as def {name}(...)")
    return code


def with_part(text: str, name: str, code: str) -> str:
    """Return a module's text in which `code` defines a function; all other lines stay.

    Raises:
        InputError: the text is no module of imports and functions.
    """
    lines = text.splitlines(keepends=True)
    for node in _tree(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(line.lineno for line in node.decorator_list)])
            return "".join([*lines[: first - 1], code, *lines[node.end_lineno :]])
    return f"{text.rstrip()}\n\n\n{code}"


def load_part(file: Path, name: str) -> Callable | None:
    """Return the function of this name from the student's file; None without one.

    Raises:
        InputError: the file holds more than imports and functions, or it cannot be executed.
    """
    return _functions(read_text(file, "your module"), file).get(name) if file.exists() else None


def _tree(text: str) -> ast.Module:
    """Parse a module that only imports and defines; executing it does nothing else."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise InputError(
            f"line {line} of {FILE} is no Python ({getattr(error, 'msg', error)}); repair or "
            "delete the file"
        ) from None
    for number, node in enumerate(tree.body):
        is_text = not number and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not is_text and not isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef)):
            raise InputError(
                f"line {node.lineno} of {FILE} is neither an import nor a function; remove it"
            )
    return tree


def _functions(text: str, file: Path) -> dict[str, Any]:
    """Execute the text of the student's module, and return what it defines."""
    _tree(text)
    scope: dict[str, Any] = {"__name__": file.stem}
    try:
        exec(compile(text, file.name, "exec"), scope)
    except Exception as error:  # of an import or a default value
        raise InputError(
            f"{file.name} cannot be loaded ({type(error).__name__}: {error}); repair or delete it"
        ) from None
    return scope


def _read(function: Callable, exercise: str) -> Callable:
    """Make a function return a tensor as the cells need it, whatever form the answer has."""
    if not PARTS[exercise].is_tensor:
        return function

    @wraps(function)
    def answer(*arguments: Any) -> Tensor:
        found = as_tensor(function(*arguments))
        if not found.is_floating_point():
            return found.long()
        kinds = [a.dtype for a in arguments if isinstance(a, Tensor) and a.is_floating_point()]
        return found.to(kinds[0] if kinds else torch.float32)

    return answer
