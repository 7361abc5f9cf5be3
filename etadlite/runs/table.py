"""What runs have become, one line a run: found in folders, told apart by their settings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.tables import aligned
from etadlite.config import Settings
from etadlite.presets import PRESETS
from etadlite.runs.run import read_metrics

HEAD = ("run", "state", "average", "s/step", "minutes", "activations", "settings")


@dataclass(frozen=True)
class RunLine:
    """A run as the table shows it.

    Attributes:
        folder: the run directory.
        settings: as in config.json.
        records: as in metrics.jsonl.
        report: as in report.json; empty while the run is not finished.
    """

    folder: Path
    settings: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    report: Mapping[str, Any]

    @property
    def state(self) -> str:
        """Finished, or how far it came."""
        if self.report:
            return "finished"
        epoch = max((record.get("epoch", 0) for record in self.records), default=0)
        total = self.settings.get("training", {}).get("epochs", "?")
        return f"epoch {epoch:.3g} of {total}"

    @property
    def average(self) -> float | None:
        """The last average mAP that was measured, 0..1."""
        tests = [r["average_mAP"] for r in self.records if "average_mAP" in r]
        return self.report.get("average_mAP", tests[-1] if tests else None)


def find_runs(roots: Sequence[Path]) -> list[RunLine]:
    """All runs in and below the folders, by path.

    Raises:
        InputError: there is none, or a file of one cannot be read.
    """
    folders: dict[Path, None] = {}
    for root in roots:
        if not root.is_dir():
            raise InputError(f"{root}: there is no such folder; give one that holds runs")
        found = sorted(path.parent for path in root.rglob("config.json"))
        found = [path for path in found if (path / "metrics.jsonl").exists()]
        if not found:
            raise InputError(
                f"{root} holds no run: none of its folders has config.json and metrics.jsonl; "
                "etadlite train makes one"
            )
        folders |= dict.fromkeys(found)
    return [
        RunLine(folder, _read(folder / "config.json"), read_metrics(folder), _report_of(folder))
        for folder in folders
    ]


def runs_table(runs: Sequence[RunLine]) -> str:
    """State, average mAP in %, costs and settings of runs.

    The settings shown are those that differ from the run's preset; of runs without a preset, such
    as on data of one's own, those that differ among runs of the same name. Folders and files of
    the data are left out.
    """
    trees = [dict(_leaves(run.settings)) for run in runs]
    rows = [HEAD]
    for run, tree in zip(runs, trees, strict=True):
        alike = [other for other in trees if other.get("name") == tree.get("name")]
        cost = run.report.get("seconds_per_step")
        steps = max((record.get("step", 0) for record in run.records), default=0)
        peak = run.report.get("peak_activation_bytes")
        rows.append(
            [
                str(run.folder),
                run.state,
                "" if run.average is None else f"{100 * run.average:.1f}",
                "" if cost is None else f"{cost:.3f}",
                "" if cost is None else f"{cost * steps / 60:.1f}",
                "" if peak is None else f"{peak / 2**20:.1f} MiB",
                " ".join(_changes(tree, alike)),
            ]
        )
    numbers = [row[:-1] for row in rows]
    last = [row[-1] for row in rows]
    lines = aligned(numbers, left=2).splitlines()
    width = max(map(len, lines))
    heads = [lines[0], *lines[2:]]
    whole = [f"{line:<{width}}  {text}".rstrip() for line, text in zip(heads, last, strict=True)]
    return "\n".join([whole[0], "-" * max(map(len, whole)), *whole[1:]])


def curve_names(runs: Sequence[RunLine]) -> dict[str, Path]:
    """A name for every run, as short as tells them apart: the end of its path."""
    parts = [run.folder.resolve().parts for run in runs]
    length = 1
    while len({path[-length:] for path in parts}) < len(parts):
        length += 1
    return {
        "/".join(path[-max(length, 2) :]): run.folder for path, run in zip(parts, runs, strict=True)
    }


def _changes(tree: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> list[str]:
    """`key=value` of what sets a run apart."""
    name = tree.get("name")
    if name in PRESETS:
        base: Settings = PRESETS[name]()
        usual = dict(_leaves(base.model_dump(mode="json")))
        keys = [key for key in tree if tree[key] != usual.get(key, tree[key])]
    else:
        keys = [key for key in tree if len({json.dumps(other.get(key)) for other in alike}) > 1]
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in tree.items()
        if key in keys and key not in FOLDERS
    ]


FOLDERS = {f"data.{name}" for name in ("annotations", "videos", "features", "cache", "blocked")}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their full name."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _report_of(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    return _read(path) if path.exists() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is no JSON file: {error}; delete that run or copy it again"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object; delete that run or copy it again")
    return content
