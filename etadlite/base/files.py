"""Files that are written whole or not at all, and JSON files that are read or refused."""

import errno
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a draft to write to, and rename it to `path` if the block ends without an error.

    A reader of `path` finds the old file or the new one, never a part of it. A killed process
    leaves at most a draft behind, named like `path` with `.part` before its suffix. The folder is
    made where it is missing; the draft has the suffix of `path`, since some writers need it.

    Raises:
        OSError: the file cannot be written; the error has a number and names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename not in (None, str(draft)):
            raise
        # NumPy and safetensors report a failed write without its number: ask for a block of disk.
        has_room = shutil.disk_usage(path.parent).free >= 4096
        code = error.errno or (errno.EIO if has_room else errno.ENOSPC)
        raise OSError(code, os.strerror(code), str(path)) from error
    finally:
        draft.unlink(missing_ok=True)


def made_from(what: str, source: Path) -> bytes:
    """Return a note for the end of a file: what it holds, and the state of the file it is made of.

    When that file is replaced, its note is another one.
    """
    state = source.stat()
    return f"{what} of {state.st_size} bytes changed at {state.st_mtime_ns} ns".encode()


def is_draft(name: str) -> bool:
    """Return True for a draft of `written_whole` or an unfinished download."""
    return name.endswith(".part") or re.search(r"\.\d+\.part\.\w+$", name) is not None


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    with written_whole(path) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_text(path: Path, what: str, remedy: str = "copy or make it again") -> str:
    """Read a text file; `what` it should be and the `remedy` if it cannot be read are for messages.

    Raises:
        InputError: the file is missing or unreadable, or its encoding is another; see `decoded`.
    """
    try:
        return decoded(path.read_bytes(), path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such {what}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read as {what}: {error}; {remedy}") from None


def decoded(content: bytes, source: Path | str) -> str:
    """Return text that is in UTF-8, or in the UTF-16 or UTF-32 that its first bytes show.

    Raises:
        InputError: it is in neither of them.
    """
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:
        raise InputError(f"{source} is not in UTF-8 or UTF-16; save it again as UTF-8") from None


def read_json(path: Path, what: str, remedy: str = "copy or make it again") -> Any:
    """Read a JSON file, see `read_text` and `parse_json`."""
    return parse_json(read_text(path, what, remedy), path, what, remedy)


def parse_json(
    text: str, source: Path | str, what: str = "text", remedy: str = "correct it"
) -> Any:
    """Read JSON as it can be used without loss; messages name its `source`.

    Raises:
        InputError: it is not JSON, is nested too deep, a key stands twice in one object, or a whole
            number has more than 20 digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_twins, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{source} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}; "
            f"this {what} cannot be used: {remedy}"
        ) from None
    except RecursionError:
        raise InputError(f"{source} is nested too deep to be used as {what}; {remedy}") from None
    except ValueError as error:
        raise InputError(f"{source} cannot be used as {what}: {error}; {remedy}") from None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict, of which none may be lost."""
    content = dict(pairs)
    if len(content) != len(pairs):
        ((twin, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f'"{twin}" stands twice, so that one of both would be lost; join them')
    return content


def _whole_number(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"{digits[:9]}... is a number of {len(digits)} digits")
    return int(digits)
