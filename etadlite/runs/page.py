"""The report of a run as one HTML page, which opens without a network and runs no script."""

import shlex
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import etadlite
from etadlite.base.errors import printable
from etadlite.base.files import read_json, written_whole
from etadlite.config import Settings, flat, read_settings
from etadlite.evaluation.diagnosis import diagnose, diagnosis_table, even_edges
from etadlite.prepare.explain import explained, setting_text
from etadlite.presets import PRESETS
from etadlite.runs.testing import what_is_scored
from etadlite.training.report import RunReport
from etadlite.viz.diagnosis import draw_diagnosis
from etadlite.viz.style import png

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; overflow-wrap: break-word }
h1, h2 { line-height: 1.2; font-weight: 600 } h2 { margin-top: 2.5rem }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid #ddd }
td.number, th.number { text-align: right }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; line-height: 1.35 }
pre.command { white-space: pre-wrap } summary { cursor: pointer; margin: 1rem 0 }
td:first-child { white-space: nowrap } td + td + td { min-width: 24rem }
.quiet { color: #666 }
"""


def write_page(folder: Path, report: RunReport) -> Path:
    """Write report.html into a run directory and return its path.

    It shows the results, the pictures in the directory, the kinds of errors of the predictions
    after DETAD, the command that repeats the run, and all settings. Pictures are inside the page.
    """
    config = folder / "config.json"
    settings = read_settings(read_json(config, "settings file of a run"), str(config))
    title = f"{settings.name}: average mAP {100 * report.average:.1f} %"
    pictures = folder / "pictures"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="quiet">{_text(str(folder))}, etadlite {etadlite.__version__}</p>',
        _results(report),
        "<h2>Repeat it</h2>",
        f'<pre class="command">{_text(command_of(settings))}</pre>',
        "<h2>Detections in test videos</h2>",
        *(_image(path) for path in sorted(pictures.glob("timeline_*.png"))),
        *(_numbered(path) for path in pictures.glob("labels.json")),
        "<h2>Training</h2>",
        *(_image(path) for path in pictures.glob("curves.png")),
        "<h2>Errors</h2>",
        *_errors(settings, read_json(folder / "predictions.json", "predictions of a run")),
        "<h2>Settings</h2>",
        _settings(config),
    ]
    with written_whole(folder / "report.html") as draft:
        head = f'<meta charset="utf-8">\n<title>{_text(title)}</title>\n<style>{STYLE}</style>'
        page = [f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>', *parts]
        draft.write_text("\n".join([*page, "</body>\n</html>\n"]), encoding="utf-8")
    return folder / "report.html"


def command_of(settings: Settings) -> str:
    """Return the command that trains with these settings: a preset and what differs from it.

    Settings without a preset, such as those of a user's own data, all stand in the command's file.
    """
    if settings.name not in PRESETS:
        return "etadlite train config.json    # in the directory of the run"
    usual = flat(PRESETS[settings.name]().model_dump(mode="json"))
    values = flat(settings.model_dump(mode="json"))
    changes = [f"{key}={setting_text(v)}" for key, v in values.items() if v != usual.get(key)]
    return shlex.join(["etadlite", "train", settings.name, *changes])


def _results(report: RunReport) -> str:
    scores = zip(report.tiou, report.per_tiou, strict=True)
    rows = [[f"mAP at tIoU {tiou:g}", f"{100 * score:.1f} %"] for tiou, score in scores]
    rows += [
        ["average mAP", f"{100 * report.average:.1f} %"],
        ["most activations at once", f"{report.peak_activation_bytes / 2**20:.1f} MiB"],
        ["seconds per step (median)", f"{report.seconds_per_step:.3f}"],
        ["videos per second", f"{report.videos_per_second:.2f}"],
        ["share of the time that waits for videos", f"{100 * report.waiting_share:.0f} %"],
        ["steps without an update", str(report.skipped_steps)],
        ["unreadable videos", str(report.unreadable_videos)],
    ]
    return _table(("result", ""), rows, numbers=(1,))


def _errors(settings: Settings, predictions: dict[str, Any]) -> list[str]:
    truth, predictions, chosen = what_is_scored(settings, predictions)
    edges = even_edges(truth, chosen["subset"], chosen["blocked"], chosen["duplicates"])
    found = diagnose(truth, predictions, **chosen, edges=edges)
    said = (
        "Kinds of errors after DETAD (Alwassel et al. 2018). Lengths, shares of the video and "
        "numbers of actions are cut where they give groups of equal size."
    )
    picture = _embedded(png(draw_diagnosis(found)), "Kinds of errors, gains, groups of actions")
    return [f"<p>{said}</p>", picture, f"<pre>{_text(diagnosis_table(found))}</pre>"]


def _settings(config: Path) -> str:
    """Return a table of the settings that differ from the preset, and a folded one of all."""
    rows = explained(str(config))
    head = ("setting", "value", "meaning")
    shown = [[row.key, row.text, row.meaning] for row in rows]
    changed = [cells for row, cells in zip(rows, shown, strict=True) if row.differs]
    said = '<p class="quiet">Other than in the preset, whose value is in brackets:</p>'
    first = f"{said}\n{_table(head, changed)}\n" if changed else ""
    return f"{first}<details><summary>All settings</summary>\n{_table(head, shown)}\n</details>"


def _numbered(path: Path) -> str:
    """Name the labels that pictures number, because no font of their machine could write them."""
    labels = read_json(path, "labels of the pictures")
    return f"<p>{_text(', '.join(f'{n} {label}' for n, label in labels.items()))}</p>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        sides = [' class="number"' if n in numbers else "" for n in range(len(cells))]
        pairs = zip(cells, sides, strict=True)
        return "".join(f"<{tag}{side}>{_text(cell)}</{tag}>" for cell, side in pairs)

    body = [f"<tr>{line(cells, 'td')}</tr>" for cells in rows]
    return "\n".join(["<table>", f"<tr>{line(head, 'th')}</tr>", *body, "</table>"])


def _text(text: str) -> str:
    return escape(printable(text))


def _image(path: Path) -> str:
    return _embedded(path.read_bytes(), path.stem.replace("_", " "))


def _embedded(content: bytes, alt: str) -> str:
    data = b64encode(content).decode()
    return f'<img alt="{_text(alt)}" src="data:image/png;base64,{data}">'
