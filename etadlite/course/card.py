"""A notebook's card states what recorded runs took; notebooks/runtimes.json keeps the numbers.

In a source the card is `<!-- card -->`; where the profile `full` has data of its own, it is
`<!-- card, full: ActivityNet-1.3 -->`.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.files import write_json
from etadlite.course.notebook import PROFILES, contents

MARK = re.compile(r"<!-- card(?:, full: (.+?))? -->")
UNKNOWN = "not recorded yet"


def card_table(runtimes: dict[str, Any], full: str | None = None) -> str:
    """The Markdown table of one notebook's profiles.

    Args:
        runtimes: profile -> what `recorded` returned; a profile without a recorded run is absent.
        full: the data of the profile `full`; None: the large generated set.
    """
    lines = ["| profile | data | minutes | memory | what to expect |", "|---|---|---|---|---|"]
    for profile, (size, *_) in PROFILES.items():
        run = runtimes.get(profile)
        if run is None:
            data = full if full and profile == "full" else contents(size)
            cells = [data, *[UNKNOWN] * 3]
        else:
            cells = [
                run["data"],
                f"{run['minutes']:.1f} ({run['device']})",
                f"{run['memory_gib']:.1f} GiB",
                ", ".join(f"{name}: {_range(*run['results'][name])}" for name in run["results"]),
            ]
        lines.append(f"| {' | '.join([f'`{profile}`', *cells])} |")
    return "\n".join(lines)


def put_card(cells: Sequence[dict[str, Any]], runtimes: dict[str, Any]) -> None:
    """Replace the mark in a notebook's cells by the table, in place."""
    for cell in cells:
        cell["source"] = MARK.sub(lambda mark: card_table(runtimes, mark[1]), cell["source"])


def recorded(metrics: dict[str, Any]) -> dict[str, Any]:
    """What a run took and reached, each result as a range.

    Args:
        metrics: what `Run.finish` wrote.

    Raises:
        InputError: the run kept results of an earlier one, so that its time says nothing.
    """
    if metrics.get("kept"):
        raise InputError(
            f"the run kept {', '.join(metrics['kept'])} from an earlier one; record a run that "
            "started with an empty out_dir"
        )
    return {
        "runs": 1,
        "data": metrics["data"],
        "device": f"{metrics['device']}, {metrics['threads']} threads",
        "minutes": metrics["minutes"],
        "memory_gib": metrics["memory_gib"] or 0.0,
        "results": {name: [value, value] for name, value in metrics["results"].items()},
    }


def record_run(name: str, folder: Path, metrics: dict[str, Any], code: str) -> None:
    """Keep what a run of a notebook took and reached.

    Over runs of the same code on the same kind of device, the ranges grow; others start anew.
    """
    book = folder / "runtimes.json"
    runtimes = json.loads(book.read_text(encoding="utf-8"))
    profiles = runtimes.setdefault(name, {})
    new, old = recorded(metrics) | {"code": code}, profiles.get(metrics["profile"])
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
    shown = f"{least:.3g}", f"{most:.3g}"
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)
