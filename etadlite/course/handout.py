"""Write the course into a folder: its notebooks, their sources, and the scripts they name."""

import importlib.metadata
from pathlib import Path

import etadlite
from etadlite.base.errors import InputError
from etadlite.base.files import written_whole

NOTEBOOKS = ("*.md", "runtimes.json", "*.ipynb", "source/*.py", "teachers/*.md")
PARTS = (
    *(f"notebooks/{part}" for part in NOTEBOOKS),
    *(f"data_scripts/{part}" for part in ("README.md", "*.py", "*.sh")),
)
"""What belongs to the course; `pyproject.toml` puts the same files into the wheel."""


def write_course(folder: Path, *, overwrite: bool = False) -> str:
    """Write the course into a folder, and return lines that say what was done.

    FOLDER/notebooks has the notebooks, FOLDER/data_scripts the scripts that they name. The
    notebooks keep their videos in FOLDER/data and their results in FOLDER/runs. A file that is
    there and differs is kept and named; with `overwrite` it is replaced and named.

    Raises:
        InputError: this installation lacks the notebooks.
    """
    source = shipped_notebooks().parent
    written, changed = 0, []
    for file in (file for part in PARTS for file in sorted(source.glob(part))):
        place, content = folder / file.relative_to(source), file.read_bytes()
        if place.exists() and place.read_bytes() != content:
            changed.append(str(file.relative_to(source)))
            if not overwrite:
                continue
        elif place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(place) as draft:
            draft.write_bytes(content)
        written += 1
    lines = [f"{written} files written to {folder}"]
    if changed:
        done = "replaced" if overwrite else "kept as you have them; --overwrite replaces them"
        lines.append(f"{len(changed)} files differ and were {done}: {', '.join(changed)}")
    lines.append(f"next: cd {folder} && jupyter lab notebooks/00_quickstart.ipynb")
    return "\n".join(lines)


def shipped_notebooks() -> Path:
    """Return the folder of the notebooks in the repository, or of those that pip installed.

    Raises:
        InputError: there is none.
    """
    places = [Path(etadlite.__file__).resolve().parents[1] / "notebooks"]
    installed = importlib.metadata.files("etadlite") or ()
    places += [Path(str(f.locate())).resolve().parent for f in installed if f.name == _MARK]
    for place in places:
        if (place / _MARK).is_file():
            return place
    raise InputError(
        "this installation of etadlite lacks the notebooks; repair it with pip install "
        "--force-reinstall --no-deps etadlite"
    )


_MARK = "runtimes.json"  # only the course has a file of this name
