"""A notebook's card says what recorded runs took; notebooks/runtimes.json keeps the numbers.

In a source, `<!-- card -->` marks its place, or `<!-- card, full: ActivityNet-1.3 -->` if the
profile `full` trains on a published data set.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.files import read_json, write_json
from etadlite.course.notebook import PROFILES, contents

MARK = re.compile(r"<!-- card(?:, full: (.+?))? -->")


def card_table(runtimes: dict[str, Any], full: str | None = None) -> str:
    """Return the Markdown table of a notebook's profiles.

    `runtimes` are the records of profiles, by name. `full` is the data set of the profile `full`;
    None is the large generated one.
    """
    lines = ["| profile | data | minutes | memory | what to expect |", "|---|---|---|---|---|"]
    for profile, (size, *_) in PROFILES.items():
        if run := runtimes.get(profile):
            cells = [
                run["data"],
                f"{run['minutes']:.1f} ({run['device']})",
                f"{run['memory_gib']:.1f} GiB",
                ", ".join(f"{name}: {_range(*ends)}" for name, ends in run["results"].items()),
            ]
        else:
            data = full if full and profile == "full" else contents(size)
            cells = [data, *["not recorded yet"] * 3]
        lines.append(f"| {' | '.join([f'`{profile}`', *cells])} |")
    return "\n".join(lines)


def put_card(cells: Sequence[dict[str, Any]], runtimes: dict[str, Any]) -> None:
    """Replace the mark in a notebook's cells by the table, in place."""
    for cell in cells:
        cell["source"] = MARK.sub(lambda mark: card_table(runtimes, mark[1]), cell["source"])


def record_run(name: str, folder: Path, metrics: dict[str, Any], code: str) -> None:
    """Add the metrics that `Run.finish` wrote to the record; `code` is the hash of the code.

    Runs of the same code on the same kind of device and data widen the ranges; another run replaces
    them.

    Raises:
        InputError: the run used results of an earlier run, so that its minutes say nothing.
    """
    if metrics.get("kept"):
        raise InputError(
            f"the run kept {', '.join(metrics['kept'])} from an earlier one; record a run that "
            "started with an empty out_dir"
        )
    new = {
        "runs": 1,
        "data": metrics["data"],
        "device": f"{metrics['device']}, {metrics['threads']} threads",
        "minutes": metrics["minutes"],
        "memory_gib": metrics["memory_gib"] or 0.0,
        "results": {result: [value, value] for result, value in metrics["results"].items()},
        "code": code,
    }
    book = folder / "runtimes.json"
    runtimes = read_json(book, "record of runs")
    profiles = runtimes.setdefault(name, {})
    old = profiles.get(metrics["profile"])
    if old and all(old[same] == new[same] for same in ("code", "device", "data")):
        new["runs"] += old["runs"]
        for measure in ("minutes", "memory_gib"):
            new[measure] = max(old[measure], new[measure])
        for result, values in new["results"].items():
            both = [*old["results"].get(result, []), *values]
            new["results"][result] = [min(both), max(both)]
    profiles[metrics["profile"]] = new
    write_json(book, dict(sorted(runtimes.items())))


def _range(least: float, most: float) -> str:
    return " to ".join(dict.fromkeys((f"{least:.3g}", f"{most:.3g}")))
