"""The numbers in the notebooks' prose: each is what the recorded run printed, or is given here.

A number that comes from an output stands in `TIED` with the output that it comes from; where a new
recording prints another one, the test names the sentence to change. In the cells that speak of
results, every other number must be listed in `GIVEN`, so that no untied result slips in.
"""

import json
import re
from functools import cache
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import nbformat
import pytest

from etadlite.course.build import notebook_names, notebooks_folder
from etadlite.course.source import without_glossary

FOLDER = notebooks_folder()
RESULTS = Path(__file__).parent / "benchmarks" / "results"
NAMES = {name[:2]: name for name in notebook_names(FOLDER)}
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
SPEAKS = re.compile(r"What to see|recorded|How to read it")  # of results


@cache
def notebook(number):
    return nbformat.read(FOLDER / f"{NAMES[number]}.ipynb", as_version=4)


def recorded(number):
    return any(cell.get("outputs") for cell in notebook(number).cells)


def printed(number, cell):
    (found,) = [one for one in notebook(number).cells if one.id == cell]
    return "".join(output.get("text", "") for output in found.outputs)


def said(number, cell):
    """A cell's text on one line, without its links to the glossary."""
    (found,) = [one for one in notebook(number).cells if one.id == cell]
    return re.sub(r"\s+", " ", without_glossary(found.source))


def out(number, cell, pattern):
    """Numbers that a recorded cell printed: the groups of a pattern."""

    def values():
        if not recorded(number):
            pytest.skip(f"{NAMES[number]} carries no outputs yet: make record NOTEBOOK=...")
        text = printed(number, cell)
        found = re.search(pattern, text, re.DOTALL)
        assert found, f"{number} {cell} did not print {pattern}:\n{text}"
        return tuple(float(group.replace(",", "")) for group in found.groups())

    return values


def card(number, result):
    """A result on a notebook's card."""
    return lambda: tuple(
        json.loads((FOLDER / "runtimes.json").read_text())[NAMES[number]]["laptop"]["results"][
            result
        ][:1]
    )


def readme(row):
    """The average and its deviation in the README's table of three seeds."""
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    pattern = rf"\| {re.escape(row)}[^\n]*\*\*([\d.]+) ± ([\d.]+)\*\*"
    return lambda: tuple(float(value) for value in re.search(pattern, text).groups())


def headline(cells, system):
    """Mean and deviation over the three seeds of the benchmark of cells."""

    def values():
        runs = json.loads((RESULTS / "headline.json").read_text())["runs"][cells][system]
        assert sorted(run["seed"] for run in runs) == [0, 1, 2]
        scores = [run["mAP"] for run in runs]
        return mean(scores), stdev(scores)

    return values


def real_clips(system):
    """Mean and deviation over the five folds of real clips."""

    def values():
        runs = json.loads((RESULTS / "real_small.json").read_text())["runs"]
        of_folds = {run["fold"]: [] for run in runs}
        for run in runs:
            if run["system"] == system:
                of_folds[run["fold"]].append(100 * run["average_mAP"])
        scores = [mean(of_seeds) for of_seeds in of_folds.values()]
        return mean(scores), stdev(scores)

    return values


def of(function, *sources):
    """What a function makes of all numbers of some sources."""
    return lambda: function(*(value for source in sources for value in source()))


def together(*sources):
    """All numbers of some sources, in order."""
    return of(lambda *values: values, *sources)


def apart(higher, lower):
    """The points between two means with deviations, as they are printed."""
    return of(lambda a, _, b, __: (round(a, 1) - round(b, 1),), higher, lower)


ROUGH = r" +(\d+\.\d+)"
PLANNED = ("weights", "gradients", "optimiser")
SYSTEMS = ("feature-based", "end to end, 30 % of the snippets", "end to end, all snippets")
AVERAGES = [
    out("00", "train", rf"{re.escape(name)}, seed 0: average mAP ([\d.]+)") for name in SYSTEMS
]


def error_of(strategy):
    """A strategy's squared error in the table of notebook 03."""
    return out("03", "compare", rf"\b{strategy} +bias²[^\n]*= +([\d.]+)")


def kept_as(kind):
    """How many of the kept detections in notebook 07 are of a kind."""
    return out("07", "failures", rf"detections: [^\n]*?(\d+) {kind}")


def became(kind):
    """How many actions in notebook 07 were found, or how they were lost."""
    return out("07", "failures", rf"actions: [^\n]*?(\d+) {kind}")


TIED = [  # notebook, cell, phrase, where its numbers come from
    ("00", "curves-see", "ends at {:.0f} %", AVERAGES[0]),
    (
        "00",
        "gain-text",
        "frozen encoder | {:.1f} ± {:.1f} | {:.1f} ± {:.1f} |",
        together(readme("feature-based (frozen encoder)"), headline("128", "frozen")),
    ),
    (
        "00",
        "gain-text",
        "then frozen | {:.1f} ± {:.1f} | {:.1f} ± {:.1f} |",
        together(headline("64", "labelled"), headline("128", "labelled")),
    ),
    (
        "00",
        "gain-text",
        "30 % of the snippets | {:.1f} ± {:.1f} | {:.1f} ± {:.1f} |",
        together(readme(SYSTEMS[1]), headline("128", "end to end")),
    ),
    (
        "00",
        "knows-text",
        "five folds | {:.1f} ± {:.1f} | {:.1f} ± {:.1f} |",
        together(real_clips("frozen"), real_clips("end to end, 30 % of the snippets")),
    ),
    ("00", "knows-text", "instead of 15 reaches {:.1f} ± {:.1f}", real_clips("frozen, 125 epochs")),
    ("00", "knows-text", "end to end takes, {:.1f} ± {:.1f}", real_clips("frozen, 375 epochs")),
    (
        "00",
        "gain-text",
        "the frozen system {:.1f} points",
        apart(headline("128", "frozen"), readme("feature-based (frozen encoder)")),
    ),
    (
        "00",
        "gain-text",
        "End to end stays {:.1f} points",
        apart(headline("128", "end to end"), headline("128", "frozen")),
    ),
    (
        "00",
        "gain-text",
        "with T = 64 even {:.1f} points more",
        apart(headline("64", "labelled"), readme(SYSTEMS[1])),
    ),
    ("00", "gain-text", "reaches {:.1f} ± {:.1f} with T = 64", headline("64", "both")),
    (
        "00",
        "gain-text",
        "only {:.1f} points above it",
        apart(headline("64", "both"), headline("64", "labelled")),
    ),
    ("00", "compare-see", "detector takes {:.0f} MiB", out("05", "plan", rf"detector{ROUGH}")),
    (
        "00",
        "compare-see",
        "takes {:.0f} MiB in pass 3",
        out("05", "plan", rf"with grad.*?{ROUGH}"),
    ),
    ("00", "compare-see", "to {:.0f} GiB", out("02", "dial", rf"chunks of 512:{ROUGH} GiB")),
    (
        "00",
        "full-run",
        "{:.1f} ± {:.1f}, {:.1f} ± {:.1f} and {:.1f} ± {:.1f} %",
        together(readme("feature-based (frozen encoder)"), readme(SYSTEMS[1]), readme(SYSTEMS[2])),
    ),
    ("01", "ladder-see", "reaches {:.0f} %", out("01", "ladder-judged", rf"detector .*?{ROUGH} %")),
    (
        "01",
        "ladder-see",
        "the floor {:.0f} %",
        out("01", "ladder-judged", rf"constant .*?{ROUGH} %"),
    ),
    ("01", "ladder-see", "grid is {:.1f} %", out("01", "ladder-judged", rf"ceiling .*?{ROUGH} %")),
    (
        "01",
        "ladder-see",
        "from {:.0f} % to {:.0f} %",
        out("01", "ladder-judged", r"detector  .*?([\d.]+) %.*ignored .*?([\d.]+) %"),
    ),
    ("02", "stages-see", "keeps {:.0f} MiB", out("02", "stages-picture", r"(\d+) MiB a snippet")),
    (
        "02",
        "stages-see",
        "keep {:.0f} *GiB*",
        of(
            lambda mib: (round(512 * mib / 1024, -1),),
            out("02", "stages-picture", r"(\d+) MiB a snippet"),
        ),
    ),
    ("02", "plain-see", "took {:.1f} MiB", out("02", "data", r"frames, ([\d.]+) MiB")),
    (
        "02",
        "plain-see",
        "take {:.0f} times as much",
        of(
            lambda kept, bytes_: (kept / bytes_,),
            out("02", "plain-predicted", r"of them ([\d.]+) MiB"),
            out("02", "data", r"frames, ([\d.]+) MiB"),
        ),
    ),
    (
        "02",
        "norm-see",
        "changes by {:.0f} % in chunks of one, and still by {:.0f} % in chunks of 32",
        of(
            lambda one, most: (100 * one, 100 * most),
            out("02", "norm", r"training mode: ([\de-]+), .*?, ([\de-]+)\n"),
        ),
    ),
    (
        "02",
        "prefix-see",
        "take {:.0f} % of the operations",
        of(
            lambda *giga: (100 * sum(giga[:3]) / sum(giga),),
            out("02", "stages-picture", r"([\d.]+) G op.*?" * 5),
        ),
    ),
    ("02", "dial-see", "take {:.0f} GiB", out("02", "dial", rf"chunks of 512:{ROUGH} GiB")),
    ("03", "compare-see", "than random picks, {:.2f}:", error_of("grid")),
    ("03", "compare-see", "the worst, {:.2f}.", error_of("block")),
    ("03", "compare-see", "help as well, {:.2f}:", error_of("gradient_norm")),
    ("03", "compare-see", "{:.2f} for foreground", error_of("foreground")),
    ("03", "compare-see", "{:.2f} for boundaries", error_of("boundary")),
    ("03", "compare-see", "{:.2f} for background", error_of("background")),
    ("03", "compare-see", "small error, {:.2f},", error_of("farthest")),
    ("03", "compare-see", "but {:.2f} of it", out("03", "compare", r"farthest +bias² +([\d.]+)")),
    (
        "03",
        "noise-see",
        "{:.1f} times as large, and a grid {:.1f} times",
        out("03", "noise", r"random at ratio 0.3: ([\d.]+).*grid +at ratio 0.3: ([\d.]+)"),
    ),
    (
        "03",
        "noise-see",
        "becomes {:.1f} and {:.1f} times as large",
        of(
            lambda *times: tuple(map(sqrt, times)),
            out("03", "noise", r"random at ratio 0.3: ([\d.]+).*grid +at ratio 0.3: ([\d.]+)"),
        ),
    ),
    (
        "03",
        "noise-see",
        "reached {:.1f} % and all snippets {:.1f} %: sampling cost {:.1f} points",
        of(
            lambda part, _, whole, __: (part, whole, whole - part),
            readme(SYSTEMS[1]),
            readme(SYSTEMS[2]),
        ),
    ),
    (
        "03",
        "noise-see",
        "shows {:.1f} % and {:.1f} %, {:.1f} points",
        of(lambda part, whole: (part, whole, whole - part), *AVERAGES[1:]),
    ),
    (
        "04",
        "shares-see",
        "only {:.1f} % of them",
        out("04", "shares", r"0.7: your .*?([\d.]+) %\n"),
    ),
    ("04", "shares-see", "only {:.2f} % are", out("04", "shares", r"0.9: your .*?([\d.]+) %\n")),
    (
        "04",
        "shares-see",
        "right for {:.1f} %",
        of(lambda share: (100 - share,), out("04", "shares", r"0.9: your .*?([\d.]+) %\n")),
    ),
    (
        "04",
        "mixture-see",
        "6 % hold {:.1f} to {:.1f} proposals",
        of(
            lambda *above: (min(above), max(above)),
            *(
                out("04", "mixture", rf"\b{name}: [^\n]*?([\d.]+) above 0.9")
                for name in ("random", "grid", "block", "kdpp")
            ),
        ),
    ),
    (
        "04",
        "mixture-see",
        "as many: {:.1f}.",
        out("04", "mixture", r"iou_balanced: [^\n]*?([\d.]+) above 0.9"),
    ),
    ("04", "result-see", "time ({:.2f})", out("04", "compare", r"\n +6 % +[\d.]+ +([\d.]+)")),
    (
        "05",
        "drift-see",
        "up to {:.4f}, about",
        out("05", "drift", r"encoder, 5e-07: up to ([\d.]+)\n"),
    ),
    (
        "05",
        "drift-see",
        "up to {:.2f}, three",
        out("05", "drift", r"detector, 0.0005: up to ([\d.]+)\d\d\n"),
    ),
    (
        "05",
        "plan-see",
        "take {:.0f} % of the total",
        of(
            lambda *shares: (sum(shares),),
            *(out("05", "plan", rf"\n{row} +[\d.]+ +([\d.]+)%") for row in PLANNED),
        ),
    ),
    (
        "05",
        "hours-see",
        "mean about {:.0f} TFLOP/s",
        # 18 hours at what speed, if the sampled snippets are encoded again from the first frame on
        of(
            lambda hours: (20 * hours / 18 * (1 + 1.54 * 40 / 128) / (1 + 0.81 * 40 / 128),),
            out("05", "hours", r"at 20 TFLOP/s in effect: ([\d.]+) h"),
        ),
    ),
    (
        "05",
        "hours-see",
        "would take {:.0f} hours",
        lambda: (18 * (1 + 0.81 * 40 / 128) / (1 + 1.54 * 40 / 128),),
    ),
    (
        "05",
        "full-run",
        "{:.0f} to {:.0f} hours on one GPU of 40 to 10 TFLOP/s",
        of(
            lambda *hours: hours,
            out("05", "hours", r"at 40 TFLOP/s in effect: ([\d.]+) h"),
            out("05", "hours", r"at 10 TFLOP/s in effect: ([\d.]+) h"),
        ),
    ),
    (
        "06",
        "judged-see",
        "gains {:.1f} points",
        of(
            lambda without, merged: (merged - without,),
            out("06", "judged", r"not merged: ([\d.]+) %.*\nmerged: ([\d.]+) %"),
        ),
    ),
    ("07", "failures-see", "{:.0f} detections score", out("07", "failures", r"; (\d+) detections")),
    (
        "07",
        "failures-see",
        "{:.0f} are right, and {:.0f} have the wrong class",
        of(lambda *counts: counts, *(kept_as(kind) for kind in ("right", "wrong class"))),
    ),
    (
        "07",
        "failures-see",
        "{:.0f} are found, {:.0f} only under a wrong class, and {:.0f} are not noticed",
        of(lambda *counts: counts, *map(became, ("found", "wrong class", "not noticed"))),
    ),
    (
        "07",
        "failures-see",
        "How can {:.0f} alarms belong to {:.0f} actions",
        of(lambda *counts: counts, kept_as("wrong class"), became("wrong class")),
    ),
    ("07", "failures-see", "many of the {:.0f} alarms", kept_as("wrong class")),
    ("07", "failures-see", "Of the {:.0f} actions", out("07", "failures", r"(\d+) actions")),
]

GIVEN = {  # (notebook, cell) -> numbers that are settings, sections, definitions, or published;
    # in 05 dial-see and 04 result-see also some that only a picture shows
    ("00", "method-see"): "1 2 3 2 3",
    ("00", "features-see"): "6",
    ("00", "grow-see"): "3",
    ("00", "learned-see"): "3",
    ("00", "compare-see"): "2 1 34 128 02 05 2 512",
    ("00", "full-run"): "9 00 00 3",
    ("01", "said-see"): "0.9",
    ("01", "average-see"): "0.6 1",
    ("02", "stages-see"): "6 512",
    ("02", "norm-see"): "10",
    ("02", "trace-see"): "4 8",
    ("02", "prefix-see"): "1 2 2",
    ("02", "step-see"): "3",
    ("02", "dial-see"): "512 1",
    ("02", "time-see"): "2 1 34 4",
    ("03", "unbiased-see"): "4,000",
    ("03", "toy-see"): "1 2 2 1 2 1",
    ("03", "scale-see"): "1",
    ("03", "dial-see"): "0 1 1",
    ("03", "compare-see"): "1",
    ("03", "noise-see"): "3 30",
    ("03", "stale-see"): "1",
    ("04", "shares-see"): "0.9",
    ("04", "balance-see"): "0.9",
    ("04", "alike-see"): "24 16",
    ("04", "mixture-see"): "0.9",
    ("04", "result-see"): (
        "95 100 4.3 1.0 0.9 2.7 0.5 1.0 2.0 0.7 0.6 0.9 2.3 6 2.3 6 6 64 1,552 6 93 2.1 6 260 495"
    ),
    ("05", "drift-see"): "5 7 0.02 5 4",
    ("05", "plan-see"): "512 1.3 2",
    ("05", "breakdown-see"): "0",
    ("05", "dial-see"): "0 0.5 0.75",
    ("06", "picture-see"): "90 2 5",
    ("06", "dial-see"): "62 10.7 14 90 0.75 8.5 64 128",
    ("06", "merged-see"): "3",
    ("06", "classifier-see"): "81",
    ("07", "dial-see"): "06",
    ("07", "results-see"): "0.3 0.7",
}


def filled(phrase, values):
    """A phrase with its numbers, as many as it has places."""
    return phrase.format(*values)


@pytest.mark.parametrize(
    ("number", "cell", "phrase", "source"),
    [pytest.param(*tie, id=f"{tie[0]}-{tie[1]}-{place}") for place, tie in enumerate(TIED)],
)
def test_a_number_in_the_prose_is_the_recorded_one(number, cell, phrase, source):
    wanted = filled(phrase, source())
    assert wanted in said(number, cell), f"cell {cell} of {NAMES[number]} must say: {wanted}"


def loose(number, cell):
    """Numbers of a cell that no tie covers."""
    text = said(number, cell)
    for _, _, phrase, _ in (tie for tie in TIED if tie[:2] == (number, cell)):
        pattern = re.escape(re.sub(r"\{[^}]*\}", "\0", phrase)).replace("\0", r"[\d.]+")
        text = re.sub(pattern, " ", text)
    return NUMBER.findall(text)


@pytest.mark.parametrize("number", NAMES)
def test_no_result_in_the_prose_is_untied(number):
    for cell in notebook(number).cells:
        if cell.cell_type != "markdown" or cell.id == "card" or not SPEAKS.search(cell.source):
            continue
        given = GIVEN.get((number, cell.id), "").split()
        assert loose(number, cell.id) == given, (
            f"cell {cell.id} of {NAMES[number]}: tie its new numbers to an output in TIED, or list "
            "in GIVEN what is no result"
        )
