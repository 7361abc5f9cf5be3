"""Folders that are written to: by one process alone, with one kind of files, and not in vain."""

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

from etadlite.base.errors import InputError
from etadlite.base.files import read_json, write_json

IN_USE = "in_use.txt"  # says who uses a folder; one that was killed leaves it behind
BEHIND_THE_TEXT = 2**20  # a byte of the file that holds no text


def require_writable(folder: Path) -> None:
    """Raise an `OSError` that names the folder if it cannot be made, or written to."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        TemporaryFile(dir=there).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


@contextmanager
def used_alone(folder: Path) -> Iterator[None]:
    """Keep other processes from using a folder meanwhile; a process that is killed keeps nothing.

    Raises:
        InputError: another process uses the folder; it is named.
    """
    with (folder / IN_USE).open("a+", encoding="utf-8") as file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise InputError(
                    f"{folder} is in use by {file.read().strip() or 'another process'}; wait until "
                    "it has ended, or choose another folder"
                ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}\n")
        file.flush()
        try:
            yield
        finally:
            with suppress(PermissionError):  # Windows deletes no open file
                Path(file.name).unlink(missing_ok=True)


def _lock(file: TextIO) -> None:
    """Lock a file until it is closed; raise an `OSError` if another process has done so."""
    if sys.platform == "win32":  # where nobody else can read what is locked
        import msvcrt

        os.lseek(file.fileno(), BEHIND_THE_TEXT, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def claim_folder(folder: Path, manifest: Mapping[str, Any], what: str) -> None:
    """Reserve a folder, made where it is missing, for files of one kind; messages call them `what`.

    `manifest`, as JSON takes it, is what the files depend on: `manifest.json` keeps it.

    Raises:
        InputError: the folder holds files that depend on something else.
    """
    path = folder / "manifest.json"
    if not path.exists():
        write_json(path, manifest)
    elif read_json(path, "manifest") != manifest:
        raise InputError(
            f"{folder} holds {what} made with other settings (see {path}); choose another folder, "
            "or delete this one"
        )
