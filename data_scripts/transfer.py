"""Download a file: continue where a try stopped, check the file, and only then give it its name."""

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

from etadlite.base.errors import InputError, disk_is_full
from etadlite.base.files import write_json, written_whole

CHUNK = 1 << 18
FINAL = {401, 403, 404, 410, 451}
"""Status codes that do not change if one asks again."""


class Patience(NamedTuple):
    """How long to keep trying.

    Attributes:
        attempts: number of tries in a row without progress before giving up.
        timeout: seconds without a byte after which a connection counts as dead.
        wait: seconds before the second try; doubled each time, at most a minute.
    """

    attempts: int = 6
    timeout: float = 60.0
    wait: float = 2.0


class _Again(Exception):
    """This try failed, but the next one may succeed."""

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
    """Download a file; it gets its name only when it is complete and correct.

    Until then its bytes are in NAME.part, and NAME.part.json says which version of the file they
    belong to: a later call continues only if the server still has that version.

    Args:
        url: its address.
        target: the file to write.
        size: the bytes that it must have, if known.
        checksum: "md5:HEX" or "sha256:HEX" that it must have, if known; the first digits are
            enough.
        patience: how long to keep trying.
        progress: show a bar.

    Returns:
        True if it was downloaded, False if it existed.

    Raises:
        InputError: the file cannot be downloaded, or another file arrives.
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
            if _length(part) > reached:  # a slow line may need many tries
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
            if not disk_is_full(problem):
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
    """Append to the part until the server's answer ends; a complete answer replaces it."""
    start, known = _length(part), _read_state(part)
    if start and not known:  # the version of these bytes is unknown
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
            raise _Again("the server now has another version of the file")
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
            raise _Again("the server now has another version of the file")
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
            # Not `iter_content`: it keeps bytes back until a whole chunk has arrived.
            while chunk := answer.raw.read1(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and _length(part) < total:
            raise _Again(f"the connection ended at {_length(part):,} of {total:,} bytes")


def _require_file(answer: requests.Response, part: Path) -> None:
    """Refuse an answer that is neither the file nor a part of it."""
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
    """Unpack all files of an archive with a suffix into one folder, without subfolders.

    Only the last part of a member's name is used, and only plain files are read, so no member can
    be written elsewhere. Existing files of the full size are kept.

    Args:
        archive: a zip, a tar in any compression, or TSP's HDF5 with one array per video.
        folder: folder for the files.
        suffix: suffix of the wanted files.

    Returns:
        The number of these files in the archive.

    Raises:
        InputError: the archive is broken, or two of its files have the same name.
    """
    members = _members_of_hdf5 if archive.suffix == ".h5" else _members
    seen: dict[str, str] = {}
    try:
        for path, size, source in tqdm(members(archive, suffix), f"unpack {archive.name}"):
            name = PurePosixPath(path).name
            if name in seen:
                raise InputError(
                    f"{archive}: {seen[name]} and {path} have the same name; unpack it by hand"
                )
            seen[name] = path
            target = folder / name
            if target.exists() and target.stat().st_size == size:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            _require_room(target, size)
            with written_whole(target) as draft, draft.open("wb") as file:
                shutil.copyfileobj(source, file)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and disk_is_full(error):
            raise InputError(
                f"the disk of {folder} is full; make room and run this again"
            ) from None
        raise InputError(
            f"{archive} cannot be unpacked ({error}); delete it and run this again"
        ) from None
    return len(seen)


def _members(archive: Path, suffix: str) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield name, size and content of the plain files with a suffix."""
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
    """Return the checksum of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _misfit(path: Path, size: int | None, checksum: str | None) -> str:
    """Return why a file is not the expected one; empty if it is."""
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
    """Return what identifies this version of the file; a weak ETag is not allowed for ranges."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _total(answer: requests.Response) -> int | None:
    """Return the bytes of the whole file; None if the answer does not say."""
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
