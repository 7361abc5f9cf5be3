"""Fetch a file so that it arrives whole: continued where it broke off, checked, then renamed."""

import errno
import hashlib
import json
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from etadlite.base.errors import InputError
from etadlite.base.files import write_json, written_whole

CHUNK = 1 << 18
FINAL = {401, 403, 404, 410, 451}
"""Answers that do not change by asking again."""


class Patience(NamedTuple):
    """How long to keep trying.

    Attributes:
        attempts: tries in a row that bring nothing new before giving up.
        timeout: seconds without a byte after which a connection counts as dead.
        wait: seconds before the second try; doubled each time, a minute at most.
    """

    attempts: int = 6
    timeout: float = 60.0
    wait: float = 2.0


class _Again(Exception):
    """This try failed, another may not."""

    def __init__(self, why: str, seconds: float = 0.0) -> None:
        super().__init__(why)
        self.seconds = seconds


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    patience: Patience | None = None,
    progress: bool = True,
) -> bool:
    """Download a file; under its name there is nothing until all of it is there and fits.

    What has arrived waits in NAME.part, and NAME.part.json says of which version of the file it is,
    so that a later call continues it only if the server still has that version.

    Args:
        url: where it is.
        target: where it goes.
        size: bytes it must have, where known.
        checksum: "md5:HEX" or "sha256:HEX" that it must have, where known; its first digits do.
        patience: how long to keep trying.
        progress: show a bar.

    Returns:
        Whether it had to be downloaded; False if it was there.

    Raises:
        InputError: the file cannot be had, or what arrives is not the file that was asked for.
    """
    patience = patience or Patience()
    if target.exists():
        if wrong := _misfit(target, size, checksum):
            raise InputError(f"{target} is there, but {wrong}; move it away and run this again")
        return False
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    failures, reached, anew = 0, _length(part), False
    while True:
        try:
            _receive(url, part, size, patience.timeout, progress)
        except (_Again, requests.RequestException, HTTPError) as problem:
            if _length(part) > reached:  # a slow or shaky line may take as many tries as it needs
                failures = 0
            reached, failures = max(reached, _length(part)), failures + 1
            if failures >= patience.attempts:
                raise InputError(
                    f"{url} failed {failures} times in a row, at last because {_reason(problem)}; "
                    f"{reached:,} bytes are kept in {part}: run this again to continue, or give "
                    "another address with --mirror"
                ) from None
            wanted = getattr(problem, "seconds", 0.0)
            time.sleep(min(max(wanted, patience.wait * 2 ** (failures - 1)), 60.0))
            continue
        except OSError as problem:
            if problem.errno != errno.ENOSPC:
                raise
            raise InputError(
                f"the disk of {target.parent} is full; {_length(part):,} bytes are kept in {part}: "
                "make room and run this again to continue"
            ) from None
        wrong = _misfit(part, size, checksum)
        if not wrong:
            break
        _discard(part)
        if anew:
            raise InputError(
                f"{url}: the file that arrives is not the expected one: {wrong}; nothing was kept, "
                "take it from another address with --mirror"
            )
        anew = True
    part.replace(target)
    _discard(part)
    return True


def _receive(url: str, part: Path, size: int | None, timeout: float, progress: bool) -> None:
    """Append to the part until the server's answer ends; whole answers replace it."""
    start, known = _length(part), _read_state(part)
    if start and not known:  # of what version these bytes are nobody knows
        _discard(part)
        start = 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator := known.get("validator"):
            headers["If-Range"] = validator
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        total = _total(answer)
        if answer.status_code == 416 and known.get("total") == start:
            return  # all of it had arrived
        if answer.status_code == 416:
            _discard(part)
            raise _Again("the server has another version of the file by now")
        _require_file(answer, part)
        if size is not None and total not in (None, size):
            raise InputError(
                f"{url} has {total:,} bytes, but the file has {size:,}; it is another one: take it "
                "from another address with --mirror"
            )
        if answer.status_code == 206 and not (
            _start(answer) == start and known.get("total") in (None, total)
        ):
            _discard(part)
            raise _Again("the server has another version of the file by now")
        if answer.status_code == 200:  # it ignores ranges, or the file has changed
            start = 0
        _require_room(part, (total or 0) - start)
        write_json(_state(part), {"url": url, "total": total, "validator": _validator(answer)})
        bar = tqdm(
            initial=start,
            total=total,
            desc=part.stem,
            unit="B",
            unit_scale=True,
            disable=not progress,
        )
        with bar, part.open("ab" if start else "wb") as file:
            # Not `iter_content`: it keeps what has arrived until a whole chunk is there.
            while chunk := answer.raw.read1(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and _length(part) < total:
            raise _Again(f"the connection ended at {_length(part):,} of {total:,} bytes")


def _require_file(answer: requests.Response, part: Path) -> None:
    """Refuse an answer that is not the file, or a part of it."""
    if answer.status_code in FINAL:
        raise InputError(
            f"{answer.url} answers {answer.status_code} {answer.reason}; the address may have "
            "moved: look for another and give it with --mirror"
        )
    if answer.status_code not in (200, 206):
        wait = answer.headers.get("Retry-After", "")
        seconds = float(wait) if wait.isdigit() else 0.0
        raise _Again(f"the server answers {answer.status_code} {answer.reason}", seconds)
    kind = answer.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not part.stem.endswith(".html"):
        raise InputError(
            f"{answer.url} answers with a web page instead of the file: it may ask for something "
            "or have used up its quota for today; open the address in a browser and save the file "
            f"as {part.with_suffix('')}, or try again tomorrow"
        )


def unpack(archive: Path, folder: Path, suffix: str = ".npy") -> int:
    """Write the files of an archive that have a suffix into one folder, whatever folders it has.

    Only the last part of a member's name is used and only plain files are read, so no member can
    lead elsewhere. Files that are there in their full size are kept.

    Args:
        archive: a zip, a tar in any compression, or TSP's HDF5 of one array a video.
        folder: where they go.
        suffix: of the files wanted.

    Returns:
        How many files the archive has of them.

    Raises:
        InputError: the archive is broken, or two of its files have one name.
    """
    members = _members_of_hdf5 if archive.suffix == ".h5" else _members
    seen: dict[str, str] = {}
    try:
        for path, size, source in tqdm(members(archive, suffix), f"unpack {archive.name}"):
            name = PurePosixPath(path).name
            if name in seen:
                raise InputError(
                    f"{archive} holds {seen[name]} and {path}, which have one name; unpack by hand"
                )
            seen[name] = path
            target = folder / name
            if target.exists() and target.stat().st_size == size:
                continue
            with written_whole(target) as draft, draft.open("wb") as file:
                shutil.copyfileobj(source, file)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise InputError(
                f"the disk of {folder} is full; make room and run this again"
            ) from None
        raise InputError(
            f"{archive} cannot be unpacked ({error}); delete it and run this again"
        ) from None
    return len(seen)


def _members(archive: Path, suffix: str) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of the plain files with a suffix."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                if entry.filename.endswith(suffix):
                    with packed.open(entry) as source:
                        yield entry.filename, entry.file_size, source
        return
    with tarfile.open(archive) as packed:
        for entry in packed:
            if entry.isfile() and entry.name.endswith(suffix):
                yield entry.name, entry.size, packed.extractfile(entry)


def _members_of_hdf5(archive: Path, suffix: str) -> Iterator[tuple[str, int, IO[bytes]]]:
    import io

    import numpy as np

    try:
        import h5py
    except ImportError:
        raise InputError(f"{archive} needs h5py to be unpacked: pip install h5py") from None
    with h5py.File(archive) as packed:
        for name in packed:
            source = io.BytesIO()
            np.save(source, packed[name][()].astype("float32"))
            size = source.tell()
            source.seek(0)
            yield f"{name}{suffix}", size, source


def digest(path: Path, kind: str = "sha256") -> str:
    """The checksum of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _misfit(path: Path, size: int | None, checksum: str | None) -> str:
    """In what way a file is not the expected one; empty if it is."""
    if size is not None and _length(path) != size:
        return f"it has {_length(path):,} bytes instead of {size:,}"
    if checksum is not None:
        kind, _, digits = checksum.partition(":")
        found = digest(path, kind)
        if not found.startswith(digits):
            return f"its {kind} is {found} instead of {digits}"
    return ""


def _require_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise InputError(
            f"the disk of {part.parent} has {free:,} bytes left, but {needed:,} are still to come; "
            "make room, or give another folder"
        )


def _validator(answer: requests.Response) -> str | None:
    """What names this version of the file; a weak ETag may not be used for ranges."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _total(answer: requests.Response) -> int | None:
    """Bytes of the whole file, where the answer tells."""
    if answer.status_code == 206:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = answer.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _start(answer: requests.Response) -> int:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _state(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path) -> dict:
    try:
        return json.loads(_state(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(problem: Exception) -> str:
    if isinstance(problem, requests.Timeout | ReadTimeoutError):
        return "the server did not answer in time"
    if isinstance(problem, ProtocolError):
        return "the connection broke off"
    return str(problem) or type(problem).__name__
