"""What runs reached, in words: a record for JSON, and a table of several systems and seeds."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunReport:
    """What a run reached.

    Attributes:
        folder: the run directory.
        tiou: thresholds.
        per_tiou: mAP at each threshold, 0..1.
        average: their mean.
        peak_activation_bytes: the most that autograd held at once in a step.
        seconds_per_step: median.
    """

    folder: Path
    tiou: tuple[float, ...]
    per_tiou: tuple[float, ...]
    average: float
    peak_activation_bytes: int
    seconds_per_step: float


def report_record(report: RunReport) -> dict[str, Any]:
    """A report as plain values, for JSON."""
    return {
        "average_mAP": report.average,
        "mAP": dict(zip(map(str, report.tiou), report.per_tiou, strict=True)),
        "peak_activation_bytes": report.peak_activation_bytes,
        "seconds_per_step": report.seconds_per_step,
    }


def read_report(folder: Path) -> RunReport:
    """The report of a finished run."""
    record = json.loads((folder / "report.json").read_text())
    return RunReport(
        folder,
        tuple(map(float, record["mAP"])),
        tuple(record["mAP"].values()),
        record["average_mAP"],
        record["peak_activation_bytes"],
        record["seconds_per_step"],
    )


def table(reports: Mapping[str, Sequence[RunReport]]) -> str:
    """A table of reports; several reports of a system are its seeds: mean and deviation."""
    tiou = next(iter(reports.values()))[0].tiou
    head = ["system", *(f"mAP@{t:g}" for t in tiou), "average", "activations", "s/step"]
    rows = [head]
    for name, seeds in reports.items():
        columns = [[100 * r.per_tiou[i] for r in seeds] for i in range(len(tiou))]
        columns.append([100 * r.average for r in seeds])
        rows.append(
            [
                name,
                *(_mean_and_deviation(column) for column in columns),
                f"{max(r.peak_activation_bytes for r in seeds) / 2**20:.1f} MiB",
                f"{statistics.median(r.seconds_per_step for r in seeds):.3f}",
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(row))
        for row in ([*zip(cells, widths, strict=True)] for cells in rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _mean_and_deviation(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
