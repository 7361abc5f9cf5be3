"""The first steps of a run, compared with those of a recorded one."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from etadlite.base.errors import InputError, damage_named
from etadlite.base.files import read_json, write_json
from etadlite.config import flat
from etadlite.training.recorder import read_metrics

STEPS = 50
"""Steps that are compared."""

MEASURES = ("loss", "gradient_norm")

TOLERANCE = {"loss": 1e-3, "gradient_norm": 5e-2}
"""Largest relative differences. Weights that differ by a millionth, more than by another order of
summation, stay within a third of this for 50 steps (tests/test_trajectories.py)."""

# Settings that say where things lie and how they are read, not what is computed.
_PLACES = ("data.annotations", "data.videos", "data.features", "data.cache", "data.workers")


class Trajectory(NamedTuple):
    """The first steps of a training."""

    settings: Mapping[str, Any]  # section.key -> value
    values: Mapping[str, Sequence[float]]  # loss and gradient norm of every step

    @classmethod
    def of(cls, settings: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> "Trajectory":
        """Make one from settings as a tree, and from the records of a training."""
        steps = list(islice((record for record in records if "loss" in record), STEPS))
        values = {name: [float(record[name]) for record in steps] for name in MEASURES}
        return cls(flat(settings), values)


def write_trajectory(path: Path, found: Trajectory) -> Path:
    """Write a trajectory as JSON, with the versions that computed it."""
    made = {"torch": torch.__version__, "machine": platform.machine()}
    values = {name: [float(f"{v:.7g}") for v in series] for name, series in found.values.items()}
    write_json(path, {"made_with": made, "settings": dict(found.settings), **values})
    return path


def read_trajectory(path: Path) -> Trajectory:
    """Read a recorded trajectory, or that of a run directory.

    Raises:
        InputError: it is neither, or broken.
    """
    if path.is_dir():
        config = read_json(path / "config.json", "settings file of a run")
        with damage_named(f"{path} holds records of another form", "give another run"):
            return Trajectory.of(config, read_metrics(path))
    record = read_json(path, "recorded trajectory")
    with damage_named(f"{path} is no recorded trajectory", "give another file"):
        values = {name: [float(value) for value in record[name]] for name in MEASURES}
        return Trajectory(dict(record["settings"]), values)


def deviations(run: Trajectory, recorded: Trajectory) -> dict[str, list[float]]:
    """Return by measure the relative difference in every step that both have."""
    return {
        name: [
            abs(here - there) / max(abs(there), 1e-12)
            for here, there in zip(run.values[name], recorded.values[name], strict=False)
        ]
        for name in MEASURES
    }


def compare(run: Trajectory, recorded: Trajectory) -> tuple[bool, str]:
    """Return True if two trajectories agree, and lines that say how far they are apart.

    They agree if all common steps do, within `TOLERANCE`.

    Raises:
        InputError: there is no step that both have.
    """
    found = deviations(run, recorded)
    steps = min(map(len, found.values()))
    if not steps:
        raise InputError("there is no step to compare: the run or the recording has none yet")
    lines = [f"{steps} of {len(recorded.values['loss'])} recorded steps are compared"]
    agree = True
    for name, series in found.items():
        worst, allowed = max(series), TOLERANCE[name]
        line = f"{name}: at most {worst:.1e} apart, {allowed:.0e} is allowed"
        # Not a number is never close.
        if outside := [step for step, value in enumerate(series) if not value <= allowed]:
            agree, step = False, outside[0]
            here, there = run.values[name][step], recorded.values[name][step]
            line += f"; the first outside is step {step + 1}: {here:.6g} here, {there:.6g} recorded"
        lines.append(line)
    if different := list(_different(run.settings, recorded.settings)):
        lines.append(f"settings that differ: {', '.join(different)}")
    return agree, "\n".join([*lines, "they agree" if agree else "they do NOT agree"])


def compare_runs(folders: Sequence[Path], recorded: Path) -> tuple[bool, str]:
    """Compare runs with a recorded one, see `compare`; return True if all agree."""
    known, agree, texts = read_trajectory(recorded), True, []
    for folder in folders:
        same, text = compare(read_trajectory(folder), known)
        agree &= same
        texts.append(f"{folder} against {recorded}\n{text}")
    return agree, "\n\n".join(texts)


def _different(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings in which two trainings differ, except where their files lie."""
    for key in dict.fromkeys((*ours, *theirs)):
        here, there = ours.get(key), theirs.get(key)
        if here != there and key not in _PLACES:
            yield f"{key} ({here} here, {there} recorded)"
