"""The checkpoints of runs: find the newest one."""

import sys
from pathlib import Path

from etadlite.base import distributed
from etadlite.base.errors import InputError
from etadlite.base.files import read_json

RUNS = Path("runs")
"""Folder in which `etadlite train` makes run directories."""


def chosen_checkpoint(given: Path, name: str | None = None) -> Path:
    """Return a given checkpoint; `last` stands for the newest, see `newest_checkpoint`."""
    return newest_checkpoint(name) if given == Path("last") else given


def newest_checkpoint(name: str | None = None, root: Path = RUNS) -> Path:
    """Return the newest checkpoint of the runs in and below a folder, and print which one it is.

    `name` is that of the runs' settings; None: any run.

    Raises:
        InputError: there is none.
    """
    found = [path for path in root.rglob("checkpoint.safetensors") if _is_of(path.parent, name)]
    if not found:
        of_preset = "" if name is None else f" of {name}"
        raise InputError(
            f"{root} holds no checkpoint{of_preset}: train one with etadlite train, or give "
            "--checkpoint FILE"
        )
    newest = max(found, key=lambda path: path.stat().st_mtime)
    if distributed.torchrun_rank()[0] == 0:
        state = "" if (newest.parent / "report.json").exists() else "; its training has not ended"
        print(f"checkpoint: {newest} (the newest of {len(found)}{state})", file=sys.stderr)
    return newest


def _is_of(run: Path, name: str | None) -> bool:
    """Return True if a run directory has the settings of that name."""
    config = run / "config.json"
    if name is None or not config.exists():
        return name is None
    settings = read_json(config, "settings file of a run", "delete that run or copy it again")
    return isinstance(settings, dict) and settings.get("name") == name
