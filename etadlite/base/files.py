"""Files that are written whole or not at all."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A draft to write to, renamed to `path` when the block ends without an error.

    Whoever reads `path` finds the old file or the new one, never a part of it; a process that is
    killed leaves at most a draft behind, named after `path` with `.part` before its suffix.

    Args:
        path: the file; its folder is made if need be.

    Yields:
        Where to write; it has the suffix of `path`, by which some writers know the format.

    Raises:
        OSError: it cannot be written; the error names `path`, and has a number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        # NumPy tells in words alone that a disk took less than it was given.
        code = error.errno or (errno.ENOSPC if " requested and " in str(error) else None)
        if code is None or error.filename not in (None, str(draft)):
            raise
        raise OSError(code, os.strerror(code), str(path)) from error
    finally:
        draft.unlink(missing_ok=True)


def disk_is_full(error: OSError) -> bool:
    """Whether it says that a disk, or one's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    with written_whole(path) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
