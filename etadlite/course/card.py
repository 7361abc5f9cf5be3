"""A notebook's card states what recorded runs took; this writes their numbers into it.

    python -m etadlite.course.card notebooks/00_quickstart.ipynb METRICS.json [METRICS.json ...]

The numbers are kept in notebooks/runtimes.json; the table in the notebook is made from them.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etadlite.course.notebook import PROFILES
from etadlite.data.stickfigures import SIZES
from etadlite.errors import InputError

BEGIN, END = "<!-- card -->", "<!-- /card -->"
UNKNOWN = "not recorded yet"


def card_table(runtimes: dict[str, Any]) -> str:
    """The Markdown table of one notebook's profiles.

    Args:
        runtimes: profile -> {"minutes", "memory_gib", "device", "average_mAP": {system: [least,
            most] in percent}} or None where no run was recorded.
    """
    lines = [
        "| profile | videos (training + test) | minutes | memory | average mAP (%) |",
        "|---|---|---|---|---|",
    ]
    for profile, (size, _) in PROFILES.items():
        recorded = runtimes.get(profile)
        cells = [f"`{profile}`", f"{SIZES[size].training} + {SIZES[size].validation}"]
        if recorded is None:
            cells += [UNKNOWN] * 3
        else:
            ranges = recorded["average_mAP"].items()
            cells += [
                f"{recorded['minutes']:.1f} ({recorded['device']})",
                f"{recorded['memory_gib']:.1f} GiB",
                ", ".join(f"{name}: {_range(*values)}" for name, values in ranges),
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def put_card(cells: Sequence[dict[str, Any]], table: str) -> None:
    """Replace the table between the marks in a notebook's cells, in place."""
    for cell in cells:
        source = "".join(cell["source"])
        if BEGIN in source:
            before, _, rest = source.partition(BEGIN)
            after = rest.partition(END)[2]
            text = f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"
            cell["source"] = text.splitlines(keepends=True)


def recorded(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What runs of one profile took and reached: the most time and memory, the range of mAP.

    Raises:
        InputError: a run kept results of an earlier one, so that its time says nothing.
    """
    averages: dict[str, list[float]] = {}
    for run in metrics:
        if run["kept"]:
            raise InputError(
                f"a run kept {', '.join(run['kept'])} from an earlier one; record a run that "
                "started with an empty out_dir"
            )
        for system, report in run["systems"].items():
            averages.setdefault(system, []).append(round(100 * report["average_mAP"], 1))
    return {
        "runs": len(metrics),
        "device": f"{metrics[0]['device']}, {metrics[0]['threads']} threads",
        "minutes": max(run["minutes"] for run in metrics),
        "memory_gib": max(run["memory_gib"] or 0.0 for run in metrics),
        "average_mAP": {name: [min(values), max(values)] for name, values in averages.items()},
    }


def main(notebook: Path, files: Sequence[Path]) -> None:
    """Record the runs of one profile in runtimes.json and in the notebook's card."""
    metrics = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    book = notebook.with_name("runtimes.json")
    runtimes = json.loads(book.read_text(encoding="utf-8"))
    own = runtimes.setdefault(notebook.stem, {})
    if metrics:
        own[metrics[0]["profile"]] = recorded(metrics)
    book.write_text(json.dumps(runtimes, indent=1) + "\n", encoding="utf-8")
    content = json.loads(notebook.read_text(encoding="utf-8"))
    put_card(content["cells"], card_table(own))
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    notebook.write_text(text, encoding="utf-8")


def _range(least: float, most: float) -> str:
    return f"{least:.0f}" if round(least) == round(most) else f"{least:.0f} to {most:.0f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
