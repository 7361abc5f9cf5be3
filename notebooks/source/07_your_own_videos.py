# %% card [markdown] tags=["slide"]
# # 7 · From a folder of your own videos to a detector
#
# **The question.** You have recorded some videos and noted who did what when. How do you get from
# this folder to a *temporal action [detector](glossary.md#detector)*: a program that says of a new
# video what happens in it, from when to when?
#
# **You will** bring [labels](glossary.md#label) into order that a hurried person has typed, choose
# how finely a video is cut, train for two minutes, find [actions](glossary.md#action) in a video
# that the detector never saw, and look at what it gets wrong. Then do the same with your own
# folder: every step here is one command, too.
#
# **You need** PyTorch and a first look at `00_quickstart`. The terms that matter are explained
# again.
#
# **What it takes**, from recorded runs:
#
# <!-- card -->
#
# **Shapes**: **N** snippets, **F** frames of a snippet, **T** cells of time; here T = N.

# %% parameters-text [markdown]
# ### Parameters
#
# Run the notebook as it is, or change a value here first. `smoke` only proves that everything runs;
# its numbers mean nothing. Paths are relative to `notebooks/`.

# %% parameters tags=["parameters"]
# Parameters of this notebook; papermill can replace each of them.
profile = "laptop"  # smoke, laptop or full
data_root = "../data"  # where the generated videos are kept
out_dir = "../runs/07_your_own_videos"  # the folder of "own" videos, pictures, metrics, weights
seed = 0  # governs weights, sampling and order
device = "auto"  # auto, cpu, cuda or mps
interactive = "auto"  # bars and sliders: true, false or auto

# %% setup
import copy
import csv
import json
import shutil
from collections import Counter

import numpy as np
from matplotlib.figure import Figure

from etadlite.course import check, start
from etadlite.viz.style import COLOURS

run = start(
    In,  # noqa: F821  (Jupyter's list of executed cells: a misspelt parameter is refused)
    profile=profile,
    data_root=data_root,
    out_dir=out_dir,
    seed=seed,
    device=device,
    interactive=interactive,
)

# %% method-text [markdown] tags=["slide"]
# ## Where we are
#
# This notebook begins before everything else in the picture, with **videos and labels** of your
# own. Then it goes through the whole method once.

# %% method tags=["slide-more"]
from etadlite.viz.method import draw_method

alt = "The method in one picture: three passes; the beginning, videos and labels, is lit"
run.show(draw_method("videos"), "method", alt)

# %% folder-text [markdown] tags=["slide"]
# ## 1 · A folder of videos
#
# We need videos that stand for yours. The program of the other notebooks draws them: stick figures
# before moving backgrounds, real H.264 files. We take some recordings of less than a minute and
# give them everyday names. One is **put aside**: nothing is learnt from it, and at the end the
# detector sees it for the first time, as it would see a recording of tomorrow.

# %% real-text [markdown]
# **With real people.** If `data_root` has a folder `real_small`, made by
# `data_scripts/make_real_small.py` from real clips, the notebook takes its videos instead (not in
# the profile `smoke`), and section 5 starts from an [encoder](glossary.md#encoder) that has seen
# photographs if this machine can train it within an hour.

# %% folder
from pathlib import Path

from etadlite.data.annotations import read_annotations
from etadlite.stickfigures.dataset import make_dataset

source = Path(data_root) / "real_small" / "annotations.json"
real = run.profile != "smoke" and source.exists()
if real:  # its test videos come last: they show nothing of the others
    drawn = sorted(read_annotations(source).values(), key=lambda one: (one.subset, one.name))
else:
    print("making the videos; those that exist are kept")
    source = make_dataset(run.data, run.size, progress=run.interactive)
    count = {"smoke": 9, "laptop": 48, "full": 300}[run.profile]
    drawn = sorted(read_annotations(source).values(), key=lambda one: one.duration)[: count + 1]
folder, apart = run.out / "my_videos", run.out / "new"
mine = {f"recording_{number:03d}": one for number, one in enumerate(drawn)}
new_name, new = mine.popitem()  # the one that is put aside
for name, one in {**mine, new_name: new}.items():
    target = (apart if name == new_name else folder) / f"{name}.mp4"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source.parent / "videos" / f"{one.name}.mp4", target)
labels = sorted({action.label for one in drawn for action in one.actions})
print(len(mine), "videos in my_videos, 1 in new; actions:", ", ".join(labels))

# %% folder-picture tags=["slide-more"]
from etadlite.runs.pictures import strip
from etadlite.viz import draw_timeline


def as_segments(actions):
    return [{"segment": [a.start, a.end], "label": a.label} for a in actions]


name, one = next(iter(mine.items()))
frames = strip(folder / f"{name}.mp4")  # a few frames, spread over the video
rows = {"labels": as_segments(one.actions)}
figure = draw_timeline(frames, one.duration, rows, title=f"{name}.mp4", labels=labels)
run.show(figure, "recording", f"Frames of {name}.mp4 above bars for the labelled actions")

# %% folder-see [markdown] tags=["slide-more"]
# **What to see.** A bar is a labelled action. Where there is no bar, nothing of interest happens.

# %% labels-text [markdown] tags=["slide"]
# ## 2 · Labels
#
# A **label** says which file, from when to when, and what: one line of a table for each action. A
# spreadsheet saved as CSV is enough. The columns may be called as people call them (`file` or
# `video`, `from` or `start`, ...). Label *every* action of a video: what is not labelled counts as
# "nothing happens here", and the detector learns that, too.
#
# Our table was typed by a person in a hurry. It has three mistakes.


# %% labels
def clock(seconds):  # as a video player shows it
    seconds = round(seconds, 2)
    return f"{int(seconds // 60):02d}:{seconds % 60:05.2f}"


right_table = [
    [f"{name}.mp4", clock(action.start), clock(action.end), action.label, one.subset]
    for name, one in mine.items()
    for action in one.actions
]

# %% mistakes
table = copy.deepcopy(right_table)
table[1][1:3] = table[1][2], table[1][1]
table[5][0] = table[5][0].replace("recording", "recroding")
table[9][2] = "09" + table[9][2][2:]


def write_table(path):
    with path.open("w", newline="", encoding="utf-8") as file:
        columns = ["file", "from", "to", "action", "subset"][: 5 if real else 4]
        csv.writer(file).writerows([columns, *(row[: len(columns)] for row in table)])
    return path


labels_file = write_table(run.out / "labels.csv")
print("\n".join(labels_file.read_text().splitlines()[:5]), "\n...")

# %% times-text [markdown]
# Times may be seconds, mm:ss or hh:mm:ss, with a fraction or not; a decimal comma is understood.
# What could mean two things is refused rather than guessed. Times that count *frames* go into
# columns `start_frame` and `end_frame`.

# %% assignment-setup tags=["assignment"]
from etadlite.course import check

# %% exercise-1-text [markdown]
# ### Exercise 1 · Read a time (easy, 5 minutes)
#
# Turn text such as `"83.5"`, `"1:23.5"` or `"0:01:23.5"` into seconds: one number. The first part has
# no limit, so `"90:00"` is 5400. Where nobody can tell what
# was meant (`"1:83"`: no minute has 83 seconds), return `float("nan")`.
#
# Replace the `...` by your code and run the cell. The checker says whether it is right, and what is
# wrong if it is not. A right answer is saved in `my_etad.py` (01 explains this file) and used
# below. If you skip an exercise, the package's function is used.
#
# <details><summary>Hint</summary>
#
# Split at `":"` and go through the parts: seconds so far times 60, plus the part. All parts but the
# first must be below 60.
#
# </details>


# %% exercise-1
def seconds(text):
    # BEGIN SOLUTION
    parts = [float(part) for part in text.split(":")]
    total = 0.0
    for part in parts:
        total = 60 * total + part
    return total if all(part < 60 for part in parts[1:]) else float("nan")
    # END SOLUTION


check("seconds", seconds)
seconds = run.mine("seconds", seconds)

# %% import-text [markdown]
# With it, the import of a table is a few lines. The package's import does the same, and it
# understands more ways to write a time:


# %% import
def my_rows(path):  # -> (file, start in seconds, end in seconds, label) of each line
    with path.open(newline="", encoding="utf-8") as file:
        return [
            (row["file"], seconds(row["from"]), seconds(row["to"]), row["action"])
            for row in csv.DictReader(file)
        ]


ours = my_rows(labels_file)
print(len(ours), "rows; the first:", ours[0])

# %% times
from etadlite.prepare.importers import read_rows, seconds_of

for written in ("83.5", "83,5 s", "1:23.5", "0:01:23.5", "1:83", "1.23.5", "soon"):
    print(f"{written!r:12} {seconds_of(written):7.1f} s")
theirs = read_rows(labels_file)
assert [(row.label, row.start, row.end) for row in theirs] == [
    (label, start, end) for _, start, end, label in ours
]

# %% formats-text [markdown] tags=["slide"]
# **Other forms.** Labelling by hand is easier in a program made for it. *ELAN* (files `.eaf`) and
# *VIA*, the VGG Image Annotator (its project `.json` or its CSV), are free. A **tier** is ELAN's
# track of labels, for instance one for each hand; where a file has several, `--tier` says which one
# to take. JSON may be a list or have ActivityNet's structure. All of them become the same rows.
# Here are one video's labels as a list and as ELAN saves them:

# %% formats
first = next(iter(mine))
actions = mine[first].actions
items = [{"video": first, "start": a.start, "end": a.end, "label": a.label} for a in actions]
(run.out / "list.json").write_text(json.dumps(items))
stamps = [round(1000 * time) for a in actions for time in (a.start, a.end)]  # ELAN counts ms
slots = [f'<TIME_SLOT TIME_SLOT_ID="t{i}" TIME_VALUE="{ms}"/>' for i, ms in enumerate(stamps)]
marks = [
    f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{i}" TIME_SLOT_REF1="t{2 * i}" '
    f'TIME_SLOT_REF2="t{2 * i + 1}"><ANNOTATION_VALUE>{a.label}</ANNOTATION_VALUE>'
    "</ALIGNABLE_ANNOTATION></ANNOTATION>"
    for i, a in enumerate(actions)
]
(run.out / f"{first}.eaf").write_text(
    f'<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="milliseconds"/><TIME_ORDER>{"".join(slots)}'
    f'</TIME_ORDER><TIER TIER_ID="actions">{"".join(marks)}</TIER></ANNOTATION_DOCUMENT>'
)
for form in ("list.json", f"{first}.eaf"):
    rows = read_rows(run.out / form)
    assert [row.label for row in rows] == [a.label for a in actions]
    assert np.allclose([row.start for row in rows], [a.start for a in actions], atol=0.001)
    print(f"{form}: {len(rows)} rows; the first: {rows[0].start:.2f} s, {rows[0].label}")

# %% check-text [markdown] tags=["slide"]
# ## 3 · Checked before anything is trained
#
# A wrong label does not stop a training. It makes the detector worse, and nobody sees why. So
# `init_dataset` compares every line with the video that it names. **Predict first:** which mistakes
# can a program find, and which only a person?

# %% check tags=["slide-more"]
from etadlite.base.errors import InputError
from etadlite.prepare.choose_encoder import Wish
from etadlite.prepare.own_data import ImportOptions, init_dataset


def say(line):  # names without the folders of this machine
    print(line.replace(f"{run.out.resolve()}/", "").replace(f"{run.out}/", ""))


data = run.out / "data_set"  # where the checked labels and the settings will lie
options = {"seed": run.seed, "overwrite": True, "progress": run.interactive}
if real:  # an encoder is chosen by what this machine can do, as the command does
    options["options"] = ImportOptions(encoder=Wish())
try:
    init_dataset(folder, [labels_file], data, log=say, **options)
except InputError as error:
    say(f"\nrefused: {error}")

# %% check-see [markdown]
# **What to see.** Each message names the file, the line and what does not fit. One gives a guess,
# but nothing is corrected without you. `--skip` would leave the three lines out, and their actions
# would then be missing. A wrong *class* or a start that is two seconds late goes unnoticed: only a
# person who looks can find it. Label one video twice, some days apart, and compare: the detector
# will hardly be more exact than you are.
#
# We look into the three videos and mend the table.

# %% mend
table[1][1:3] = table[1][2], table[1][1]
table[5][0] = table[5][0].replace("recroding", "recording")
table[9][2] = right_table[9][2][:2] + table[9][2][2:]  # the minute that the player shows
assert table == right_table
videos = init_dataset(folder, [write_table(labels_file)], data, log=say, **options)
print("\nwritten:", ", ".join(sorted(path.name for path in data.glob("*.json"))))

# %% split-text [markdown] tags=["slide"]
# **Split by video.** Some videos are for **training**, the others for
# **[validation](glossary.md#validation)**: testing on what was not learnt from. The split goes
# between videos, never through a video: within a video, clothes, light and background stay the
# same, and a detector could score by recognising *them*. If you recorded a person or a place
# several times, keep these videos on one side: a column `subset` in your table (`training`,
# `validation`) decides instead of the draw.
#
# Do all classes occur on both sides, and often enough?

# %% balance
counts = {
    subset: Counter(a.label for v in videos.values() if v.subset == subset for a in v.actions)
    for subset in ("training", "validation")
}
lengths = {
    label: [a.end - a.start for v in videos.values() for a in v.actions if a.label == label]
    for label in labels
}
assert sum(sum(found.values()) for found in counts.values()) == len(table)
for subset, found in counts.items():
    absent = [label for label in labels if not found[label]]
    print(f"{subset:>10}: {sum(found.values())} actions; classes without: {absent or 'none'}")

# %% balance-picture tags=["slide-more"]
figure = Figure(figsize=(12, 3.4), layout="constrained")
bars, spread = figure.subplots(1, 2, sharey=True)
left = np.zeros(len(labels))
for (subset, found), colour in zip(counts.items(), COLOURS, strict=False):
    widths = np.array([found[label] for label in labels])
    bars.barh(labels, widths, left=left, color=colour, label=subset)
    left += widths
for row, label in enumerate(labels):
    spread.plot(lengths[label], [row] * len(lengths[label]), "|", markersize=12, color=COLOURS[3])
bars.set(xlabel="actions", title="how many")
figure.legend(loc="outside lower center", ncols=2, frameon=False)
spread.set(xlabel="length (s)", title="how long", xlim=(0, None))
for axis in (bars, spread):
    axis.spines[["top", "right"]].set_visible(False)
run.show(figure, "balance", "Left: actions of each class by subset. Right: the actions' lengths")

# %% balance-see [markdown] tags=["slide-more"]
# **What to see.** Each tick on the right is one action. Our classes are fairly even. A class with a
# tenth of the others' examples would be learnt last and measured badly: its result would depend on
# two or three actions. Film more of it, rather than tune a setting.

# %% guess-text [markdown]
# **Predict first.** Write your guesses here; section 8 compares. Leave `None` where you prefer to
# wait. **Temporal IoU ([tIoU](glossary.md#tIoU))** says how well two
# [segments](glossary.md#segment) fit: the time that they share, divided by the time that they cover
# together; 1 is perfect. **[mAP](glossary.md#mAP)**, from 0 to 100 %, judges a detector: it rewards
# finding every action before any false alarm.

# %% guess
guess = {
    "pieces": None,  # into how many equal pieces must our longest video be cut?
    "fit": None,  # mean tIoU of the actions with the best segments of whole pieces (0 to 1)
    "gain": None,  # points of mAP that it brings to train the encoder, too, with so few videos
}

# %% cells-text [markdown] tags=["slide"]
# ## 4 · How many snippets?
#
# The detector cuts each video into N equal pieces of time, **[cells](glossary.md#cell)**, and looks
# at one **[snippet](glossary.md#snippet)**, F consecutive frames, in each. It can't tell apart what
# happens within one cell. So the shortest action that matters should fill **two cells**. Cells last
# longest in the longest video, so that one decides. The shortest tenth of the actions may be
# exceptions, so `init_dataset` takes the length that nine of ten actions exceed. Its answer is the
# next power of two, from 64 to 256 (from 32 to 128 for larger encoders).

# %% cells
from etadlite.presets import preset

every_length = [length for of_class in lengths.values() for length in of_class]
short = np.percentile(every_length, 10)  # nine of ten are longer
longest = max(video.info.duration for video in videos.values())
wanted = 2 * longest / short
chosen = preset(str(data / "settings.json"))
fewest, most = (64, 256) if chosen.encoder.name == "tiny" else (32, 128)
N = min(max(2 ** int(np.ceil(np.log2(wanted))), fewest), most)
print(f"2 x {longest:.1f} s / {short:.2f} s = {wanted:.0f} cells or more: N = {N}")
print(f"a cell of the longest video lasts {longest / N:.2f} s")
assert chosen.data.snippets == N

# %% dial-text [markdown] tags=["slide"]
# **One experiment on one dial.** How well could segments of whole cells fit our actions, with other
# values of N? Rounding moves a boundary by a quarter of a cell on average. Two boundaries make half
# a cell, so for an action of L cells we predict a tIoU of about 1 - 0.5 / L. We round all actions
# and see.


# %% dial
def overlap(a, b):  # tIoU of two segments (start, end)
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0] + b[1] - b[0] - shared)


def fit_on(cells):  # predicted and measured mean tIoU
    predicted, measured = [], []
    for video in videos.values():
        for action in video.actions:
            start, end = (t / video.info.duration * cells for t in (action.start, action.end))
            rounded = round(start), max(round(end), round(start) + 1)
            predicted.append(max(0.0, 1 - 0.5 / (end - start)))
            measured.append(overlap((start, end), rounded))
    return float(np.mean(predicted)), float(np.mean(measured))


dial = [8, 16, 32, 64, 128, 256]
fits = {cells: fit_on(cells) for cells in dial}
for cells, (predicted, measured) in fits.items():
    print(f"N = {cells:3d}: predicted {predicted:.3f}, measured {measured:.3f}")
assert all(abs(fits[cells][0] - fits[cells][1]) < 0.02 for cells in (64, 128, 256))

# %% dial-picture tags=["slide-more"]
figure = Figure(figsize=(8, 3.4), layout="constrained")
axis = figure.subplots()
axis.plot(dial, [fits[n][0] for n in dial], "--", color=COLOURS[7], label="predicted")
axis.plot(dial, [fits[n][1] for n in dial], "o", color=COLOURS[0], label="measured")
axis.axvline(N, color=COLOURS[3], linewidth=1, label="chosen")
axis.set_xscale("log", base=2)
axis.set_xticks(dial, map(str, dial))
axis.set(xlabel="N, snippets per video", ylabel="mean tIoU of rounded actions", ylim=(0, 1.02))
axis.grid(alpha=0.3)
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False, loc="lower right")
run.show(figure, "cells", "Mean tIoU of actions rounded to whole cells, over the number of cells")

# %% dial-see [markdown] tags=["slide-more"]
# **What to see.** With too few cells, no network can do well. More cells than needed gain little,
# and each doubling of N doubles the time and the memory. (The detector also moves the ends of what
# it finds *within* cells, so it may beat the rounding a little.) Where the simple rule fails on the
# left, actions are shorter than a cell.
#
# If your videos last an hour and your actions two seconds, no N suffices: cut the videos into
# pieces, or train on **[windows](glossary.md#window)** that slide over them (`data.window_stride`,
# in `06`).

# %% train-text [markdown] tags=["slide"]
# ## 5 · A short training
#
# The **encoder** turns each snippet into a [feature](glossary.md#feature) vector. For stick figures
# we start from the one that comes with the package. It was trained on stick figures in a clean
# [studio](glossary.md#studio) only. For real people `init_dataset` starts from a network that has
# seen photographs, EfficientNet-Lite0, if this machine can train it within an hour. With few videos
# there is a choice:
#
# - **features first**: the encoder stays [frozen](glossary.md#frozen); its features are computed
#   once and only the detector learns. This takes seconds, and little can go wrong.
# - **[end to end](glossary.md#end-to-end)**: the encoder learns, too, here from a random 30 % of
#   the snippets in each step (the *[ratio](glossary.md#ratio)*). It adapts to your world, and it
#   could memorise your few videos.
#
# Try the cheap way first, and measure on the validation videos whether the other is better.

# %% settings
epochs = {"smoke": 1, "laptop": 16, "full": 40}[run.profile]
own = [f"training.epochs={epochs}", "training.test_every=0", f"seed={run.seed}"]
chosen = preset(str(data / "settings.json"), [*run.changes, *own])
systems = {
    "features first": chosen.changed([f"data.features={json.dumps(str(data / 'features'))}"]),
    "end to end, 30 %": chosen,
}
training = sum(video.subset == "training" for video in videos.values())
steps = epochs * int(np.ceil(training / chosen.training.batch_size))
print(f"{training} training videos, {epochs} epochs: {steps} steps")
print("ratio:", chosen.sampling.snippet_ratio, " encoder's rate:", chosen.training.encoder_lr)

# %% train
from etadlite.encoders.build import build_encoder
from etadlite.prepare.extract import extract_features
from etadlite.runs.run import finished, run_training
from etadlite.training.report import read_report
from etadlite.training.report import results_table as report_table

kept, reports = [], {}
for number, (name, settings) in enumerate(systems.items()):
    place = run.out / "runs" / f"{number}"
    if finished(settings, place):
        kept.append(name)
        reports[name] = read_report(place)
        continue
    if settings.data.features is not None:
        encoder = build_encoder(settings.encoder).to(run.device)
        extract_features(settings, encoder, settings.data.features, progress=run.interactive)
    with run.watching(name, place, epochs):
        reports[name] = run_training(settings, place, progress=run.interactive)
print("kept from an earlier run:", ", ".join(kept) or "nothing")

# %% results tags=["slide-more"]
print(report_table({name: [report] for name, report in reports.items()}))
averages = [100 * report.average for report in reports.values()]

# %% results-see [markdown] tags=["slide"]
# **How to read it.** mAP is given for five demands on the fit: a [detection](glossary.md#detection)
# counts as right if its tIoU with an action of its class reaches 0.3, ..., 0.7. The validation
# videos hold few actions, so a difference of a few points is luck: repeat the training with another
# `seed` before you believe it.

# %% test-set-text [markdown] tags=["slide-more"]
# **One subset can't do two jobs.** As soon as you *choose* by the validation videos (features first
# or end to end, the number of epochs, a learning rate, the [threshold](glossary.md#threshold) of
# section 6), their number becomes too good: you have taken the best of several, and part of that
# was luck. Here we choose nothing by it, so it is still honest. If you choose, put a third part of
# the videos aside as a **test** set, decide everything with the validation videos, and then measure
# once on the test set. That last number is the one to report.

# %% few-text [markdown] tags=["slide"]
# **Too few videos?** Try this, in this order. (1) Film and label more, above all other people and
# places. (2) Use features first. (3) Train end to end with a lower `training.encoder_lr`, and with
# *fewer* epochs if the validation result falls while the loss still does. (4) A higher
# `sampling.snippet_ratio` makes the gradient less noisy, but it adds no information. What
# `init_dataset` chooses (about 600 steps) is a starting point, not a rule.

# %% predict-text [markdown] tags=["slide"]
# ## 6 · A video that it never saw
#
# `predict_videos` is what the command `etadlite predict` does: it detects, and writes
# `predictions.json`, `predictions.csv`, one timeline picture per video and, if you ask for it, the
# video with its detections drawn in. It needs the end-to-end checkpoint, which holds an encoder.

# %% predict
from etadlite.inference.predict import predict
from etadlite.model.checkpoint import load_checkpoint
from etadlite.runs.predictions import predict_videos

checkpoint = reports["end to end, 30 %"].folder / "checkpoint.safetensors"
new_file, found_in = apart / f"{new_name}.mp4", run.out / "found"
found = predict_videos(
    [new_file], checkpoint, found_in, annotate=True, device=run.device, log=say, progress=False
)[new_name]
print("\n" + "\n".join((found_in / "predictions.csv").read_text().splitlines()[:4]))
system = load_checkpoint(checkpoint, chosen).to(run.device)
again = predict(new_file, system, chosen)  # the same for one video, in Python
assert again[0]["label"] == found[0]["label"]
assert np.allclose(again[0]["segment"], found[0]["segment"], atol=0.01)

# %% timeline tags=["slide-more"]
from etadlite.runs.pictures import one_a_moment

truth = as_segments(new.actions)
clear = one_a_moment(found, len(truth) + 2)
rows = {"true": truth, "detected": clear}
figure = draw_timeline(
    strip(new_file), new.duration, rows, title=f"{new_name}.mp4, never seen", labels=labels
)
run.show(figure, "timeline", "True actions of the new video above what the detector found in it")

# %% annotated tags=["slide-more"]
from etadlite.data.video import probe, read_frames

annotated = found_in / f"{new_name}.mp4"
info = probe(annotated)
moments = [sum(item["segment"]) / 2 for item in clear[:3]]  # the middles of the best
indices = [min(round(time * info.fps), info.frames - 1) for time in sorted(moments)]
pictures = read_frames(annotated, np.array(indices), (info.height, info.width))
figure = Figure(figsize=(12, 4.6), layout="constrained")
for axis, picture, index in zip(
    figure.subplots(1, len(indices), squeeze=False)[0], pictures, indices, strict=True
):
    axis.imshow(picture.permute(1, 2, 0))
    axis.set_title(f"{index / info.fps:.1f} s", fontsize=9)
    axis.axis("off")
run.show(figure, "annotated", "Frames of the annotated video: detections above, a time bar below")

# %% annotated-see [markdown] tags=["slide-more"]
# **What to see.** Compare the two rows: which actions were found, how well do their ends fit, and
# are the classes right? In the frames, the detections are written above and a bar below shows the
# time.

# %% player-text [markdown] tags=["slide"]
# **The threshold** is your decision. The detector gives a long list with **scores**. Which of them
# you act on depends on what a false alarm costs and what a miss costs. Scores are no probabilities,
# so find the threshold on validation videos. In JupyterLab, move the sliders: the moment, the
# lowest score, and how many to show; without a running kernel you see four settings.

# %% player tags=["slide-more"]
from etadlite.viz.widgets import player

run.explore(player(new_file, found, truth, labels=labels), "player")

# %% failures-text [markdown] tags=["slide"]
# ## 7 · What does it get wrong?
#
# One number hides *why*. We take the validation videos and walk through each one's detections from
# the best down (*greedy* matching): a detection is **right** if it fits a still free action of its
# class with a tIoU of 0.5 or more. Every other one is a **false alarm**: it fits an action that is
# *found twice*, or the action that it overlaps most is its own class, *badly placed*, or a *wrong
# class*, or there is *nothing there* (tIoU below 0.1). Every action left over is a
# **[miss](glossary.md#miss)**.


# %% judge
def judge(found, truth):  # detections of one video, best first
    kinds, taken = [], set()
    for item in found:
        fit = [overlap(item["segment"], action["segment"]) for action in truth]
        same = [n for n, action in enumerate(truth) if action["label"] == item["label"]]
        free = [n for n in same if fit[n] >= 0.5 and n not in taken]
        if free:
            taken.add(max(free, key=fit.__getitem__))
            kinds.append("right")
        elif any(fit[n] >= 0.5 for n in same):
            kinds.append("found twice")
        elif max(fit, default=0) < 0.1:
            kinds.append("nothing there")
        else:
            nearest = truth[fit.index(max(fit))]
            kinds.append("badly placed" if nearest["label"] == item["label"] else "wrong class")
    return kinds, taken


# %% equal-text [markdown]
# This matching is the one inside mAP. To prove it, we compute **[average
# precision](glossary.md#average-precision)** from it. Walk down the detections of one class in all
# videos, the best first. At each right one, note the *[precision](glossary.md#precision)* so far:
# the share of right ones, or what a later place in the list reaches, if that is better. Add up
# these precisions and divide by the number of actions. The mean over the classes is mAP.

# %% equal
report = reports["end to end, 30 %"]
results = json.loads((report.folder / "predictions.json").read_text())["results"]
tests = {n: as_segments(v.actions) for n, v in videos.items() if v.subset == "validation"}
judged = [
    (item["score"], item["label"], kind == "right")
    for name, truth_of in tests.items()
    for item, kind in zip(results[name], judge(results[name], truth_of)[0], strict=True)
]
judged.sort(key=lambda row: -row[0])
precisions = []
for label in (label for label in labels if counts["validation"][label]):
    hits = np.array([right for _, of_class, right in judged if of_class == label], dtype=float)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best_later = np.maximum.accumulate(precision[::-1])[::-1]
    precisions.append((best_later * hits).sum() / counts["validation"][label])
by_hand, package = np.mean(precisions), report.per_tiou[report.tiou.index(0.5)]
print(f"mAP at tIoU 0.5: by hand {100 * by_hand:.2f} %, package {100 * package:.2f} %")
assert abs(by_hand - package) < 1e-6

# %% failures
total = sum(map(len, tests.values()))
cut = judged[min(total, len(judged)) - 1][0]  # keep about as many detections as there are actions
alarms, misses = Counter(), Counter()
for name, truth_of in tests.items():
    stay = [item for item in results[name] if item["score"] >= cut]
    kinds, taken = judge(stay, truth_of)
    alarms.update(kinds)
    for number, action in enumerate(truth_of):
        near = [(overlap(item["segment"], action["segment"]), item["label"]) for item in stay]
        fit, label = max(near, default=(0, ""))
        if number in taken:
            misses["found"] += 1
        elif fit < 0.1:
            misses["not noticed"] += 1
        else:
            misses["badly placed" if label == action["label"] else "wrong class"] += 1
assert alarms["right"] == misses["found"]
assert sum(misses.values()) == total
print(f"{total} actions; {sum(alarms.values())} detections score {cut:.3f} or more")
for what, tally in (("detections", alarms), ("actions", misses)):
    print(f"{what}: " + ", ".join(f"{number} {kind}" for kind, number in tally.most_common()))

# %% failures-picture tags=["slide-more"]
figure = Figure(figsize=(12, 2.8), layout="constrained")
kinds = {
    "what the detections are": ("right", "badly placed", "wrong class", "found twice"),
    "what became of the actions": ("found", "badly placed", "wrong class"),
}
last = ("nothing there", "not noticed")
for axis, (title, names), end, tally in zip(
    figure.subplots(1, 2), kinds.items(), last, (alarms, misses), strict=True
):
    shown = [*names, end][::-1]
    colours = [COLOURS[2] if name in ("right", "found") else COLOURS[3] for name in shown]
    axis.barh(shown, [tally[name] for name in shown], color=colours)
    axis.set(title=title, xlabel="number")
    axis.spines[["top", "right"]].set_visible(False)
run.show(figure, "failures", "Detections by kind of error, and actions by whether they were found")

# %% failures-see [markdown] tags=["slide-more"]
# **What to see.** In the recorded run, 40 detections score high enough to be kept: 25 are right,
# and 15 have the wrong class. Of the 40 actions 25 are found, 5 only under a wrong class, and 10
# are not noticed. How can 15 alarms belong to 5 actions? The detector reports each segment with its
# *two* best classes, and at most one of them is right. So many of the 15 alarms are the second name
# of an action that was found under its first name, and a lost action can have several alarms. The
# threshold counts them all, so a wrong second name also takes the place of a detection that would
# have found another action.

# %% remedies-text [markdown] tags=["slide"]
# What helps against each kind of error:
#
# - *badly placed*: look at the boundaries of your labels first; then take more cells or more
#   epochs.
# - *wrong class*: the encoder does not tell these classes apart; train it, and film more of both.
# - *nothing there*: watch these moments. Often an action was not labelled; otherwise film more
#   videos in which nothing happens.
# - *not noticed*: is the class rare, or the action shorter than two cells?

# %% compare-text [markdown]
# ## 8 · Predicted against measured

# %% compare
rows = {  # predicted, measured
    "pieces": (wanted, None),
    "fit": fits[N],
    "gain": (None, averages[1] - averages[0]),
}
print(f"{'':8}{'your guess':>12}{'predicted':>12}{'measured':>12}")
for name, values in rows.items():
    shown = ["-" if v is None else f"{v:.2f}" for v in (guess[name], *values)]
    print(f"{name:8}" + "".join(f"{text:>12}" for text in shown))

# %% exercises [markdown]
# ## 9 · One more exercise

# %% exercise-2-text [markdown]
# ### Exercise 2 · The threshold that costs least (medium, 10 minutes)
#
# `scores` are those of detections, `right` says of each whether it is right, and `actions` is the
# number of true actions. A false alarm costs `alarm`, a miss costs `miss`. Which score must a
# detection reach to be kept, so that the total cost is lowest? Return one of the scores, or
# `float("inf")` where keeping nothing is cheapest.
#
# <details><summary>Hint</summary>
#
# Try each score as a threshold: keep what reaches it (`>=`), count the wrong ones among them, and
# what is missing: `actions` minus the right ones. Keeping nothing costs `actions * miss`. `min`
# takes a `key`.
#
# </details>


# %% exercise-2
def best_threshold(scores, right, actions, alarm, miss):
    # BEGIN SOLUTION
    def cost(threshold):
        stay = [good for score, good in zip(scores, right, strict=True) if score >= threshold]
        return alarm * (len(stay) - sum(stay)) + miss * (actions - sum(stay))

    return min([*scores, float("inf")], key=cost)
    # END SOLUTION


if check("best_threshold", best_threshold):
    scores, _, right = zip(*judged, strict=True)
    for miss in (1, 10):
        print(f"a miss costs {miss} false alarms:", best_threshold(scores, right, total, 1, miss))

# %% full-run [markdown] tags=["slide"]
# ## 10 · Your own folder
#
# You can do the same with commands; `my_videos` is your folder:
#
# ```
# etadlite init-dataset my_videos --annotations labels.csv
# etadlite train my_videos/settings.json --out runs
# etadlite train my_videos/settings.json --out runs training.epochs=60
# etadlite runs runs --picture curves.png
# etadlite predict new_videos --checkpoint runs/my_videos/001/checkpoint.safetensors --video
# etadlite evaluate --ground-truth my_videos/annotations.json --subset validation \
#     --predictions runs/my_videos/001/predictions.json --tiou 0.3:0.7:0.1
# ```
#
# Features first: `etadlite extract my_videos/settings.json --out my_videos/features`, then train
# with `data.features=my_videos/features`. `--resume last` continues a stopped training. To run this
# notebook with 300 videos: `etadlite notebook 07_your_own_videos -p profile full`. For real people
# in real rooms, `init-dataset` chooses an encoder that has seen photographs (`pip install
# "etadlite[lite]"`) and says how long a training takes on this machine; `--encoder r2plus1d_34`
# names another one.

# %% metrics
run.finish(
    {f"{name}, mAP (%)": round(value, 1) for name, value in zip(reports, averages, strict=True)},
    kept=kept,
    detections=dict(alarms),
    actions=dict(misses),
    compare={name: {"predicted": p, "measured": m} for name, (p, m) in rows.items()},
)
print("written to out_dir: metrics.json, pictures, data_set, runs, found")

# %% summary [markdown] tags=["slide"]
# ## Summary
#
# - Labels are checked against the videos before anything is learnt; what a program can't know, a
#   person must check.
# - The shortest action that matters should fill two cells, and rounding its boundaries loses half a
#   cell: N follows by arithmetic.
# - Split by video. Try features first, then end to end. Choose on validation videos, and report
#   what other videos, a test set, give.
# - Sort the errors by kind: each kind has its own remedy.

# %% limits [markdown] tags=["slide-more"]
# ## Limits and care
#
# Stick figures with perfect labels are easier than people with hasty ones, and a dozen validation
# videos give only a rough measurement. A detector of actions watches people: film and keep only
# those who agreed. It judges worse, without saying so, whoever and whatever was not in its training
# (other cameras, clothes, bodies, ages): test it on them, and let no decision about a person rest
# on it alone.

# %% references [markdown]
# ## References
#
# - H. Alwassel et al., *Diagnosing Error in Temporal Action Detectors*, ECCV 2018: errors by kind,
#   in finer detail than here.
# - H. Sloetjes, P. Wittenburg, *Annotation by Category: ELAN and ISO DCR*, LREC 2008: ELAN.
# - A. Dutta, A. Zisserman, *The VIA Annotation Software for Images, Audio and Video*, ACM
#   Multimedia 2019: VIA.
# - S. Liu et al., *ETAD: Training Action Detection End to End on a Laptop*, CVPR Workshops 2023,
#   [arXiv:2205.07134](https://arxiv.org/abs/2205.07134): the method.

# %% questions-text [markdown]
# ## Questions
#
# Five questions have choices, and each choice is explained. Three questions are to be answered in
# words; write your answer before you unfold what counts. In JupyterLab, run the cell and press the
# buttons.

# %% questions tags=["alone"]
from etadlite.course.quiz import show_quiz

show_quiz("07_your_own_videos")
