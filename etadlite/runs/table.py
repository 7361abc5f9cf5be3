"""A table of runs: how far each one is, what it reached, and in which settings they differ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from etadlite.base.display import padded, width
from etadlite.base.errors import InputError, damage_named
from etadlite.base.files import read_json
from etadlite.base.tables import aligned
from etadlite.config import flat
from etadlite.prepare.explain import setting_text
from etadlite.presets import PRESETS
from etadlite.training.recorder import read_metrics
from etadlite.training.report import RunReport, read_report

HEAD = ("run", "state", "average", "s/step", "minutes", "activations", "settings")
# Settings that say where data lie; the table leaves them out.
FOLDERS = {f"data.{name}" for name in ("annotations", "videos", "features", "cache", "blocked")}

_json = partial(json.dumps, ensure_ascii=False)  # labels of any script stay readable


@dataclass(frozen=True)
class RunLine:
    """A run."""

    folder: Path
    settings: Mapping[str, Any]  # section.key -> value
    records: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    report: RunReport | None  # None until the run is finished
    problem: str = ""  # why its files cannot be read; empty if they can

    @property
    def state(self) -> str:
        """Say whether the run is finished, or how far it is."""
        if self.problem:
            return "broken"
        if self.report is not None:
            return "finished"
        epoch = max((record.get("epoch", 0) for record in self.records), default=0)
        return f"epoch {epoch:.3g} of {self.settings.get('training.epochs', '?')}"

    @property
    def average(self) -> float | None:
        """The average mAP of the last test, 0..1; None before the first test."""
        if self.report is not None:
            return self.report.average
        tests = [record["average_mAP"] for record in self.records if "average_mAP" in record]
        return tests[-1] if tests else None


def find_runs(roots: Sequence[Path]) -> list[RunLine]:
    """Find all runs in and below the folders, by path; raise `InputError` if a folder has none.

    A run whose files are broken has a `problem`.
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
    return [_read(folder) for folder in folders]


def run_records(runs: Sequence[RunLine]) -> list[dict[str, Any]]:
    """Return a record per run: state, average mAP (0..1), costs, settings other than the preset's.

    For runs without a preset, such as on a user's own data, the settings are those that differ
    among the runs of the same name. What is not known yet is None.
    """
    records = []
    for run in runs:
        alike = [o.settings for o in runs if o.settings.get("name") == run.settings.get("name")]
        record = {"run": str(run.folder), "name": run.settings.get("name"), "state": run.state}
        record |= {"problem": run.problem or None, "average_mAP": run.average}
        record["steps"] = max((record.get("step", 0) for record in run.records), default=0)
        report = run.report
        record["seconds_per_step"] = None if report is None else report.seconds_per_step
        record["activation_bytes"] = None if report is None else report.peak_activation_bytes
        records.append(record | {"settings": _changes(run.settings, alike)})
    return records


def runs_table(runs: Sequence[RunLine]) -> str:
    """Return a table of runs, see `run_records`; mAP is in %."""
    rows: list[tuple[str, ...]] = [HEAD]
    for run in run_records(runs):
        costs, seconds, average = ("", "", ""), run["seconds_per_step"], run["average_mAP"]
        if seconds is not None:
            memory = f"{run['activation_bytes'] / 2**20:.1f} MiB"
            costs = (f"{seconds:.3f}", f"{seconds * run['steps'] / 60:.1f}", memory)
        score = "" if average is None else f"{100 * average:.1f}"
        changed = run["settings"].items()
        texts = [f"{key}={setting_text(value)}" for key, value in changed]
        rows.append((run["run"], run["state"], score, *costs, run["problem"] or " ".join(texts)))
    columns = max(width(row[-1]) for row in rows)  # the last column is aligned to the left as well
    return aligned([(*row[:-1], padded(row[-1], columns)) for row in rows], left=2)


def curve_names(runs: Sequence[RunLine]) -> dict[str, Path]:
    """Name every run by the end of its path, as short as tells the runs apart."""
    parts = [run.folder.resolve().parts for run in runs]
    length = next(n for n in count(2) if len({path[-n:] for path in parts}) == len(parts))
    return {"/".join(path[-length:]): run.folder for path, run in zip(parts, runs, strict=True)}


def _changes(settings: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings in which a run is special."""
    name = settings.get("name")
    if name in PRESETS:
        usual = flat(PRESETS[name]().model_dump(mode="json"))
        keys = [key for key in settings if settings[key] != usual.get(key, settings[key])]
    else:
        keys = [key for key in settings if len({_json(o.get(key)) for o in alike}) > 1]
    return {key: settings[key] for key in keys if key not in FOLDERS}


def _read(folder: Path) -> RunLine:
    config = folder / "config.json"
    try:
        settings = read_json(config, "settings file of a run", "delete that run or copy it again")
        if not isinstance(settings, dict):
            raise InputError(f"{config} holds no JSON object; delete that run or copy it again")
        report = read_report(folder) if (folder / "report.json").exists() else None
        run = RunLine(folder, flat(settings), read_metrics(folder), report)
        with damage_named(f"{folder} holds records of another form", "delete that run"):
            runs_table([run])
    except InputError as error:
        return RunLine(folder, {}, (), None, str(error))
    return run
