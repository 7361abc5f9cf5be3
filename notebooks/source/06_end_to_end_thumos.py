# %% card [markdown] tags=["slide"]
# # 6 · End to end on THUMOS-14: windows over long videos
#
# **The question.** A football match lasts 90 minutes, and a shot lasts two seconds. A fixed number
# of [snippets](glossary.md#snippet), spread over the whole video, would miss the shot. How does one
# train and test a [detector](glossary.md#detector) in *pieces* of a video, and put the pieces
# together again?
#
# **You will** cut videos into [windows](glossary.md#window), decide which
# [actions](glossary.md#action) belong to a window, predict which are never learnt, train on
# windows, and merge what is found in them. With the profiles `smoke` and `laptop` this is a
# **rehearsal** on generated videos; with `full` the same cells are the training on THUMOS-14.
#
# **You need** PyTorch and the notebooks 00 to 02.
#
# **What it takes**, from recorded runs:
#
# <!-- card, full: THUMOS-14 -->
#
# **Shapes** have one legend everywhere: **B** videos or windows, **N** snippets, **F** frames,
# **T** cells of time, **P** proposals or segments.

# %% parameters-text [markdown]
# ### Parameters
#
# Run the notebook as it is, or change a value here first. `smoke` only proves that everything runs;
# its numbers mean nothing. For `full`, `data_root` is the folder of THUMOS-14, such as
# `../data/thumos-14`, and `train` is what follows `etadlite train`: a preset (`e2e_thumos_tsp`, or
# `thumos_i3d` on stored features) and changes to its settings, such as `training.epochs=3`.
# `etadlite check-data e2e_thumos_tsp` says what is missing. Paths are relative to `notebooks/`.

# %% parameters tags=["parameters"]
# Parameters of this notebook; papermill can replace each of them.
profile = "laptop"  # smoke, laptop or full
data_root = "../data"  # where the generated videos are kept; for full: of THUMOS-14
out_dir = "../runs/06_end_to_end_thumos"  # pictures, metrics, weights
seed = 0  # governs weights, sampling and order
device = "auto"  # auto, cpu, cuda or mps
interactive = "auto"  # bars and sliders: true, false or auto
train = "e2e_thumos_tsp"  # for full: a preset and changes to its settings

# %% setup
import json

import numpy as np
import torch
from matplotlib.figure import Figure

from etadlite.course import RealData, check, start
from etadlite.viz.style import COLOURS

run = start(
    In,  # noqa: F821  (Jupyter's list of executed cells: a misspelt parameter is refused)
    profile=profile,
    data_root=data_root,
    out_dir=out_dir,
    seed=seed,
    device=device,
    interactive=interactive,
    full=RealData("THUMOS-14", ("e2e_thumos_tsp", "thumos_i3d"), train),
)

# %% method-text [markdown] tags=["slide"]
# ## Where we are
#
# This notebook is about what comes before the three passes if videos are long: **windows**. At the
# end, what was found in the windows of a video is merged. The training step itself does not change.

# %% method tags=["slide-more"]
from etadlite.viz.method import draw_method

alt = "The method in one picture: three passes; the windows are lit"
run.show(draw_method("windows"), "method", alt)

# %% protocol-text [markdown] tags=["slide"]
# ## 1 · The protocol, beside ActivityNet's
#
# | | ActivityNet-1.3 | THUMOS-14 |
# |---|---|---|
# | videos: train, test | 10,024, 4,926 | 200 ("validation"), 213 minus two ("test") |
# | length of a video | 2 minutes | 3.5 minutes on average, up to half an hour |
# | actions per video | 1.5 | 15, half of them below 3 s |
# | classes | 200, one per video | 20; one video in seven has two or more |
# | a sample is | the whole video | a window of it |
# | temporal IoU (tIoU) | 0.50 to 0.95 | 0.3 to 0.7 in steps of 0.1 |
#
# **[tIoU](glossary.md#tIoU)** is the time that two [segments](glossary.md#segment) share, divided
# by what they cover together; a [detection](glossary.md#detection) counts as right if its tIoU
# reaches a [threshold](glossary.md#threshold). The thresholds are lower here, since the actions are
# short: take a segment of 2 s whose ends are each off by half a second. If both ends lie too far
# inside, its tIoU is 1 / 2 = 0.5; if it is shifted, 1.5 / 2.5 = 0.6; if both lie too far outside, 2
# / 3 = 0.67.
#
# Where annotators could not tell, they wrote the [label](glossary.md#label)
# **[`Ambiguous`](glossary.md#Ambiguous)**. It is no class: such actions are neither trained nor
# counted.

# %% settings-text [markdown]
# For the rehearsal we take some generated videos and mark actions below 2.5 s as `Ambiguous`. A
# **[preset](glossary.md#preset)** is a complete tree of settings, and `section.key=value` changes
# it. The [encoder](glossary.md#encoder) and the detector are the small ones; the detector predicts
# the classes itself, because a classifier of whole videos can't say which of several classes
# happens when.


# %% ambiguous
def mark_short(database, seconds=2.5):
    for entry in database.values():
        for action in entry["annotations"]:
            if action["segment"][1] - action["segment"][0] < seconds:
                action["label"] = "Ambiguous"


# %% rehearsal
from etadlite.stickfigures.dataset import make_dataset

full = run.profile == "full"
if not full:
    database = json.loads(make_dataset(run.data, run.size, progress=run.interactive).read_text())
    mark_short(database["database"])
    (run.out / "annotations.json").write_text(json.dumps(database))

# %% settings
from etadlite.presets import preset

paper, settings = preset("e2e_thumos_tsp"), run.settings  # the latter in full only
if not full:
    unused = [f"training_{n:05d}" for n in range(40, 100)]  # a rehearsal must be short
    unused += [f"validation_{n:05d}" for n in range(16, 40)]
    window = {"stride": 8, "offset": 4, "overlap": 0.5, "inside": 0.9}
    changes = [f"data.window_{name}={value}" for name, value in window.items()]
    changes += [
        f"data.annotations={run.out / 'annotations.json'}",
        f"data.videos={run.data / 'videos'}",
        f"data.blocked={json.dumps(unused)}",
        "data.cache=null",  # it keeps whole videos
        f"seed={run.seed}",
        *run.changes,
    ]
    for key in ("nms_sigma", "nms_voting", "min_score", "max_detections"):
        changes.append(f"inference.{key}={getattr(paper.inference, key)}")
    if run.profile == "laptop":
        changes += ["training.epochs=4", "training.test_every=1"]
    settings = preset("e2e_stickfigures", changes)
print("preset", settings.name)

# %% read
from etadlite.data.annotations import NOT_A_CLASS, read_annotations
from etadlite.data.split import read_split

splits = {
    part: read_split(settings.data, training=part == "training")
    for part in ("training", "validation")
}
everything = read_annotations(settings.data.annotations, as_published=True)
for part, videos in splits.items():
    actions = sum(len(video.actions) for video in videos)
    unclear = sum(a.label in NOT_A_CLASS for v in videos for a in everything[v.name].actions)
    several = sum(len({action.label for action in video.actions}) > 1 for video in videos)
    print(
        f"{part}: {len(videos)} videos, {actions} actions, {unclear} ambiguous ones left out;",
        end=" ",
    )
    print(f"{several} videos with several classes")

# %% windows-text [markdown] tags=["slide"]
# ## 2 · Windows
#
# A **snippet** is F consecutive frames. Here snippets lie at a fixed distance, the
# **[stride](glossary.md#stride)**: every 4 frames in THUMOS-14, every 8 in the rehearsal. So a
# second has as many [cells](glossary.md#cell) in a long video as in a short one. A **window** is N
# consecutive snippets, and the next window begins half a window later: the
# **[overlap](glossary.md#overlap)** is 0.5. A window that would run over the end of the video is
# moved back, so that it ends with the video.


# %% windows
def cut(frames, size, stride, overlap):  # -> [(first snippet, end)]
    snippets = -(-frames // stride)
    step = int(size * (1 - overlap))
    windows = []
    for number in range(max(1, snippets // step)):
        if number * step + size > snippets:
            return [*windows, (max(0, snippets - size), snippets)]
        windows.append((number * step, number * step + size))
    return windows


size, stride = settings.data.snippets, settings.data.window_stride
for frames in (300, 900, 1600):
    print(f"{frames} frames, {-(-frames // stride)} snippets:", cut(frames, size, stride, 0.5))

# %% windows-equal
from etadlite.data.windows import windows_of

for frames in range(1, 3000, 7):
    for overlap in (0.5, 0.75):
        ours = cut(frames, size, stride, overlap)
        theirs = windows_of(frames, size=size, stride=stride, overlap=overlap)
        assert [(w.first_frame, w.snippets) for w in theirs] == [
            (a * stride, b - a) for a, b in ours
        ]
print("equal to the package's")

# %% inside-text [markdown] tags=["slide"]
# ### Which actions belong to a window?
#
# A window may cut an action in two. If only its beginning can be seen, a detector that says "ends
# here, at the window's border" would learn something false. The rule: a training window keeps an
# action if **more than 90 %** of it lies inside, cut to the window; a window without actions is not
# trained on. In the test all windows are used.


# %% inside
def kept_actions(actions, window, share):  # actions: (first frame, end, label)
    kept = []
    for begin, end, label in actions:
        first, last = max(begin, window.first_frame), min(end, window.last_frame)
        if last > first and (last - first) / (end - begin) > share:
            kept.append((first, last, label))
    return kept


# %% inside-equal
from etadlite.data.windows import action_frames, actions_inside

share, counted = settings.data.window_inside, 0
cuts = {"size": size, "stride": stride, "overlap": settings.data.window_overlap}
for video in splits["training"]:
    actions = action_frames(video)  # in whole frames
    for window in windows_of(video.frames, **cuts):
        ours = kept_actions(actions, window, share)
        assert ours == [tuple(action) for action in actions_inside(actions, window, share)]
        counted += bool(ours)
print(f"equal to the package's; {counted} windows with actions to train on")

# %% picture-code
shown = max(splits["validation"], key=lambda video: (video.duration < 70, video.duration))
rate = shown.frames / shown.duration
windows = windows_of(shown.frames, **cuts)


def draw_windows(axis, video, windows):
    actions = action_frames(video)
    for begin, end, _ in actions:
        axis.barh(-1, (end - begin) / rate, left=begin / rate, color=COLOURS[0], height=0.6)
    for row, window in enumerate(windows):
        first, last = window.first_frame / rate, window.last_frame / rate
        axis.barh(row, last - first, left=first, color="#eeeeee", height=0.8)
        kept = kept_actions(actions, window, share)
        for begin, end, label in actions:
            lo, hi = max(begin, window.first_frame), min(end, window.last_frame)
            if hi > lo:
                colour = COLOURS[2] if (lo, hi, label) in kept else COLOURS[3]
                hatch = None if colour == COLOURS[2] else "///"
                options = {"color": colour, "height": 0.6, "hatch": hatch, "edgecolor": "white"}
                axis.barh(row, (hi - lo) / rate, left=lo / rate, **options)
    rows = range(-1, len(windows))
    axis.set_yticks(rows, ["actions", *(f"window {n + 1}" for n in range(len(windows)))])
    axis.set(xlim=(0, video.duration), xlabel="time (s)", ylim=(len(windows) - 0.4, -1.6))
    axis.spines[["top", "right"]].set_visible(False)


# %% picture tags=["slide-more"]
figure = Figure(figsize=(12, 1 + 0.4 * len(windows)), layout="constrained")
axis = figure.subplots()
draw_windows(axis, shown, windows)
axis.set_title(f"test video {shown.name}: kept actions green, dropped ones hatched")
run.show(figure, "windows", "Windows over a video; actions that each keeps, and those it drops")

# %% picture-see [markdown]
# **What to see.** An action that a border cuts is dropped in one window (hatched) and usually kept
# by its neighbour: that is what the overlap is for. "Kept" means that more than 90 % of it lie
# inside: window 2 keeps an action whose beginning it cuts off. Most actions are seen twice. In the
# test, too, most of them are *found* twice; section 5 merges them.

# %% grid-text [markdown] tags=["slide"]
# ### From cells to seconds
#
# Inside a window, time is counted in cells: cell 0 is its first snippet. A snippet stands for its
# *middle*, `offset` frames after its first frame: 8 for [features](glossary.md#feature) of 16
# frames. In `e2e_thumos_tsp` a snippet takes every second of 32 frames (`frame_step=2`), because
# the encoder was pre-trained at 15 frames per second and these videos have 30; its middle is at 16.

# %% grid
from etadlite.data.timegrid import TimeGrid

window, offset = windows[-1], settings.data.window_offset
grid = TimeGrid.window(window.first_frame, size, stride, rate, offset)
for cell in (0, 1, size):
    seconds = (window.first_frame + offset + cell * stride) / rate
    print(f"cell {cell:3}: {seconds:6.2f} s")
    assert abs(seconds - grid.to_seconds(cell)) < 1e-9

# %% dial-text [markdown] tags=["slide"]
# ## 3 · One dial: the overlap
#
# An action that no window keeps is never learnt. **Predict first**: an action of *L* snippets, a
# window of *W*, a new window every *S* = *W* (1 − overlap). The action is kept if less than a tenth
# of it lies outside. So it may begin 0.1 *L* before the window, and end 0.1 *L* after it: a range
# of *W* − *L* + 0.2 *L* = *W* − 0.8 *L*. Windows come every *S*, so the chance is
#
# $$\min\left(1, \frac{W - 0.8\,L}{S}\right),$$
#
# and 0 for 0.9 *L* ≥ *W*: no window holds enough of such an action.


# %% dial-predicted
def chance_to_be_kept(length, size, overlap, share=0.9):
    step = int(size * (1 - overlap))
    chance = np.clip((size - (2 * share - 1) * length) / step, 0, 1)
    return chance * (share * length < size)


# %% dial-measured
from etadlite.data.windows import FrameAction


def share_kept(length, overlap, count=200):  # of actions everywhere in a long video
    windows = windows_of(100 * size, size=size, stride=1, overlap=overlap)
    found = 0
    for begin in size + 96 * size * (np.arange(count) * 0.618034 % 1):  # spread evenly
        action = FrameAction(round(1000 * begin), round(1000 * (begin + length)), "")
        near = [
            w._replace(first_frame=1000 * w.first_frame, last_frame=1000 * (w.last_frame + 1))
            for w in windows
            if abs(w.first_frame - begin) < 2 * size
        ]
        found += any(actions_inside([action], window, 0.9) for window in near)
    return found / count


overlaps, parts = (0.5, 0.75), (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.2)
measured = {o: [share_kept(round(p * size), o) for p in parts] for o in overlaps}

# %% dial-picture tags=["slide-more"]
figure = Figure(figsize=(7, 3.4), layout="constrained")
axis = figure.subplots()
line = np.linspace(0.05, 1.3, 200)
for colour, overlap in zip(COLOURS, overlaps, strict=False):
    predicted = [chance_to_be_kept(p * size, size, overlap) for p in line]
    axis.plot(line, predicted, color=colour, label=f"overlap {overlap}, predicted")
    axis.plot(parts, measured[overlap], "o", color=colour, label="measured")
axis.set(xlabel="length of the action (windows)", ylabel="share kept by a window")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
for overlap in overlaps:
    expected = [chance_to_be_kept(round(p * size), size, overlap) for p in parts]
    assert np.abs(np.subtract(expected, measured[overlap])).max() < 0.05
run.show(figure, "overlap", "Share of actions that some window keeps, against their length")

# %% dial-see [markdown]
# **What to see.** With an overlap of one half, every action up to 62 % of a window (10.7 s in
# THUMOS-14) is *kept* by some window: more than 90 % of it lie inside. To have every action
# **whole** in some window it must be shorter still: at most half a window, because a new window
# begins every half window. A higher overlap helps longer actions only, and at 0.75 it costs twice
# as many windows. Nine of ten actions last 8.5 s or less, and that is also the longest
# [proposal](glossary.md#proposal) that the preset looks at (64 of 128 cells): the published choice
# fits most of the data, but not the longest actions.

# %% data-text [markdown] tags=["slide"]
# ## 4 · Training on windows
#
# From here a window is what a video was before: N snippets go in, and actions in cells come with
# them. The three passes of [sequential encoding](glossary.md#sequential-encoding) do not change at
# all.

# %% data
from etadlite.training.loop import open_split

train_data = open_split(settings, training=True)
sample = train_data[0]
print(len(train_data), "training windows; a window is", list(sample.inputs.shape))
for (first, last), label in zip(sample.actions.tolist(), sample.labels.tolist(), strict=True):
    called = settings.detector.classes[label] if settings.detector.classes else "action"
    print(f"{called:>7}: cells {first:5.1f} to {last:5.1f}")

# %% frames-text [markdown]
# In THUMOS-14 the stride is shorter than a snippet, so neighbouring snippets share frames. The
# package decodes each frame of a window once, and cuts and colours it the same in all snippets that
# show it.

# %% train-text [markdown] tags=["slide"]
# `run_training` trains, tests and draws into one folder. With `resume=True` it continues where the
# run of that folder stopped, so this cell can simply be executed again (notebook 05 proves that the
# numbers are the same). `tensorboard --logdir` on the folder shows the curves while it trains.

# %% train
from etadlite.runs.run import run_training

folder = run.out / f"{run.profile}_seed{run.seed}"
folder.mkdir(parents=True, exist_ok=True)
already = (folder / "config.json").exists()
with run.watching(settings.name, folder, settings.training.epochs, resume=True):
    report = run_training(settings, folder, resume=True, progress=run.interactive)
for threshold, value in zip(report.tiou, report.per_tiou, strict=True):
    print(f"mAP at tIoU {threshold:.1f}: {100 * value:5.1f} %")
print(f"average {100 * report.average:.1f} %, {report.seconds_per_step:.2f} s per step")

# %% curves tags=["slide-more"]
from etadlite.training.recorder import read_metrics
from etadlite.viz import draw_curves

curves = draw_curves({settings.name: read_metrics(folder)})
run.show(curves, "curves", "Left: training loss over epochs. Right: average mAP on test videos")

# %% curves-see [markdown] tags=["slide-more"]
# **What to see.** The loss falls and [mAP](glossary.md#mAP) rises to the end: four epochs are only
# a beginning.

# %% merge-text [markdown] tags=["slide"]
# ## 5 · Merging windows
#
# Each window gives its own detections. First we collect all of them, window by window, for the
# video of section 2 and for the first test videos:

# %% found
from etadlite.base.segments import tiou
from etadlite.data.datasets import collate
from etadlite.inference.detect import detections_of
from etadlite.model.checkpoint import load_checkpoint
from etadlite.runs.testing import video_classes

test_data = open_split(settings, training=False)
system = load_checkpoint(folder / "checkpoint.safetensors", settings).to(run.device).eval()
best_classes = video_classes(settings, test_data)  # None where the detector itself names them
by_window = {name: [] for name in [shown.name, *(v.name for v in splits["validation"][:20])]}
for index in range(len(test_data)):
    if (name := test_data.name(index)) in by_window:
        batch = collate([test_data[index]])
        with torch.inference_mode():
            output = system(batch.inputs)
        classes = None if best_classes is None else [best_classes[name]]
        by_window[name] += detections_of(output, batch.grids, settings, classes)
counts = [len(found) for found in by_window[shown.name]]
print(f"{shown.name}: {len(counts)} windows with {counts} detections")
best = torch.tensor([found[0]["segment"] for found in by_window[shown.name][:5] if found])
fits = ", ".join(f"{fit:.2f}" for fit in tiou(best[:-1], best[1:]).tolist())
print("tIoU of the best detections of neighbouring windows:", fits or "there is one window")

# %% soft-text [markdown] tags=["slide"]
# **[Soft-NMS](glossary.md#soft-NMS)** takes the best detection, then multiplies the score of every
# other one by exp(−tIoU² / σ). A detection that overlaps the pick much is probably the same action,
# so its score sinks far. Then it takes the next best, and so on, until the best that is left lies
# below a minimum score.

# %% voting-text [markdown] tags=["slide-more"]
# **[Voting](glossary.md#voting)** then moves each pick: its start and end become the mean, weighted
# by score, of all detections that overlap it with a tIoU of 0.95 or more. Two windows that saw the
# same action agree on a compromise.

# %% assignment-setup tags=["assignment"]
import torch

from etadlite.base.segments import tiou
from etadlite.course import check

# %% exercise-1-text [markdown]
# ### Exercise 1 · Merging windows (harder, 20 minutes)
#
# `segments` [P, 2] and `scores` [P] are the detections of all windows of one video. Return one row
# per pick, the best pick first: [K, 4] with the number of the picked detection (0 to P − 1), its
# start and its end after voting, and the score that was left when it was picked. A score that was
# lowered stays low for all later picks. Stop when the best score that is left lies below `least`:
# if all lie below it at once, K is 0. Those that vote are all segments as they were *given*, with
# the scores that were *given*, if their tIoU with the pick is at least `voting`. `tiou(a, b)` takes
# segments [..., 2].
#
# Replace the `...` by your code and run the cell. The checker says whether it is right, and what is
# wrong if it is not. A right answer is saved in `my_etad.py` (01 explains this file) and used
# below. If you skip an exercise, the package's function is used.
#
# <details><summary>Hint</summary>
#
# Work on a copy of the scores. `tiou(segments[pick], segments)` is [P]. Set the score of a picked
# detection to -1, so that it is not picked again. `scores * (fits >= voting)` are the weights of
# the vote.
#
# </details>


# %% exercise-1
def merge_windows(segments, scores, sigma, voting, least):
    # BEGIN SOLUTION
    left, rows = scores.clone(), []
    while len(left) and left.max() >= least:
        pick = int(left.argmax())
        fits = tiou(segments[pick], segments)  # [P]
        weights = scores * (fits >= voting)
        start, end = (weights[:, None] * segments).sum(dim=0) / weights.sum()
        rows.append([pick, float(start), float(end), float(left[pick])])
        left = left * torch.exp(-(fits**2) / sigma)
        left[pick] = -1
    return torch.tensor(rows, dtype=scores.dtype).view(-1, 4)
    # END SOLUTION


check("merge_windows", merge_windows)
merge_windows = run.mine("merge_windows", merge_windows)


# %% merge
def merge(found, duration, chosen):  # detections of all windows -> of the video
    segments = torch.tensor([item["segment"] for item in found], dtype=torch.float64)
    segments = segments.reshape(-1, 2).clamp(0, duration)
    there = (segments[:, 1] > segments[:, 0]).nonzero().flatten().tolist()
    scores = torch.tensor([found[i]["score"] for i in there], dtype=torch.float64)
    limits = chosen.nms_sigma, chosen.nms_voting, chosen.min_score
    rows = merge_windows(segments[there], scores, *limits)[: chosen.max_detections]
    return [
        {"segment": [start, end], "label": found[there[int(pick)]]["label"], "score": score}
        for pick, start, end, score in rows.tolist()
    ]


# %% merge-equal
from etadlite.inference import merge as package

found = [item for window in by_window[shown.name] for item in window]
merged = merge(found, shown.duration, settings.inference)
theirs = package.merge_windows(found, shown.duration, settings.inference)
assert [item["label"] for item in merged] == [item["label"] for item in theirs]
for key in ("segment", "score"):
    ours, packaged = ([item[key] for item in items] for items in (merged, theirs))
    assert np.allclose(ours, packaged, atol=1e-5)
print(f"{len(found)} detections of all windows become {len(merged)}, equal to the package's")

# %% merged-picture tags=["slide"]
from etadlite.runs.pictures import frames_of, one_a_moment
from etadlite.viz import draw_timeline

truth = [{"segment": [a.start, a.end], "label": a.label} for a in shown.actions]
rows = {"true": truth}
for number, items in enumerate(by_window[shown.name], 1):
    rows[f"window {number}"] = one_a_moment(items, 5)
rows["merged"] = one_a_moment(merged, len(truth) + 2)
frames = frames_of(settings.data, shown.name)
labels = settings.detector.classes
figure = draw_timeline(
    frames, shown.duration, rows, title=f"test video {shown.name}", labels=labels
)
run.show(figure, "merged", "Detections of each window, and merged, below the true actions")

# %% merged-see [markdown]
# **What to see** (in the `laptop` profile). Windows that overlap report the same action twice, with
# slightly other ends; merged, it is there once. An action that a window's border cuts gets a short,
# wrong segment from that window, and the whole one from its neighbour. The one with the better
# score wins.
#
# As in the published code, this soft-NMS runs over all detections, *whatever their label*. Actions
# of two classes at the same time would hinder each other; exercise 3 asks for the other way.

# %% once-text [markdown]
# **Predict first.** What is lost if windows are *not* merged? Every duplicate of a found action is
# a false alarm, and mAP punishes false alarms that stand above right detections. How many points
# will it be?

# %% without-merging
from etadlite.evaluation import mean_average_precision

known = {a.label for v in splits["validation"] if v.name in by_window for a in v.actions}


def judge(merging):
    results = {}
    for video in (v for v in splits["validation"] if v.name in by_window):
        items = merging([i for window in by_window[video.name] for i in window], video.duration)
        items = [i | {"segment": np.clip(i["segment"], 0, video.duration)} for i in items]
        results[video.name] = [
            {**i, "segment": i["segment"].tolist()}
            for i in items
            if i["label"] in known and np.diff(i["segment"]) > 0
        ]
    others = [name for name in everything if name not in by_window]
    judged = {"subset": settings.data.test_subset, "tiou": settings.inference.tiou}
    truth = settings.data.annotations
    return mean_average_precision(truth, {"results": results}, blocked=others, **judged).average


# %% judged
ways = {
    "not merged": lambda found, duration: found,
    "merged": lambda found, duration: merge(found, duration, settings.inference),
}
scores = {what: 100 * judge(way) for what, way in ways.items()}
for what, value in scores.items():
    print(f"{what}: {value:.1f} % average mAP on {len(by_window)} videos")

# %% judged-see [markdown]
# **What to see.** In the recorded `laptop` run, merging gains 6.9 points, and the gain differs much
# from training to training. Duplicates sink, but soft-NMS lowers a right neighbour of another class
# as well. These videos have few windows; a long video has many. The training reports the number for
# merged detections on all test videos.

# %% classifier-text [markdown] tags=["slide"]
# ## 6 · The classifier of THUMOS-14
#
# In the full training the detector is **[class-agnostic](glossary.md#class-agnostic)**: it says
# where, not what. The classes come from **UntrimmedNet**, a classifier of whole videos, as a table
# [1574, 101] in a NumPy file: row *n* − 1 belongs to `video_test_` *n*, and the columns are the 101
# classes of *UCF101*, another data set, of which 20 are those of THUMOS-14. Each segment is
# reported with the two best of these twenty, its score times the class's. Here such a table of
# random scores for three videos:

# %% classifier
from etadlite.inference.classifiers import THUMOS_CLASSES, UntrimmedNet

table = np.random.default_rng(run.seed).random((3, 101)).astype("float32")
np.save(run.out / "scores.npy", table)
print(UntrimmedNet(run.out / "scores.npy").top("video_test_0000002", 2))
columns = {table[1, number - 1]: label for number, label in THUMOS_CLASSES.items()}
print([(columns[score], float(score)) for score in sorted(columns)[:-3:-1]])

# %% classifier-see [markdown]
# **What to see.** Both lines are equal; the other 81 columns play no part. Two classes per segment
# are enough for most videos, but where a third class occurs its actions are lost. This is a limit
# of naming whole videos, and no detector can remove it.

# %% exercises [markdown]
# ## 7 · More exercises

# %% exercise-2-text [markdown]
# ### Exercise 2 · Seconds of a cell (easy, 5 minutes)
#
# Return where position `cell` of a window lies, in seconds of the video: one number. The window
# begins at frame `first_frame`, and a cell is `stride` frames long. A snippet stands for the frame
# `offset` frames after its first one. `cell` may be a fraction, and so may `fps`, the frames per
# second.
#
# <details><summary>Hint</summary>
#
# First the frame: the window's first frame, plus the offset of a snippet's middle, plus `stride`
# frames per cell. There are `fps` frames per second.
#
# </details>


# %% exercise-2
def seconds_of(cell, first_frame, stride, offset, fps):
    # BEGIN SOLUTION
    return (first_frame + offset + cell * stride) / fps
    # END SOLUTION


check("seconds_of", seconds_of)

# %% exercise-3-text [markdown]
# ### Exercise 3 · Soft-NMS within a class (medium, 10 minutes)
#
# A detection was picked. `overlaps` [P] are the tIoUs of all detections with it, `labels` [P] their
# classes, `label` the pick's. Return the lowered `scores` [P]: those of the *same* class times
# exp(−tIoU² / `sigma`), the others as they were. Don't change `scores` itself.
#
# <details><summary>Hint</summary>
#
# `torch.where(condition, a, b)` takes `a` where the condition holds, and `b` elsewhere.
#
# </details>


# %% exercise-3
def lower(scores, overlaps, labels, label, sigma):
    # BEGIN SOLUTION
    lowered = scores * torch.exp(-(overlaps**2) / sigma)
    return torch.where(labels == label, lowered, scores)
    # END SOLUTION


check("lower", lower)

# %% exercise-3-note [markdown] tags=["solution"]
# Published numbers do not use this variant, and `etadlite` has none either: its soft-NMS lowers the
# scores of all classes alike.

# %% full-run [markdown]
# ## 8 · The full run
#
# `data_scripts/download.py` fetches what is open and says how to ask for the rest;
# `data_scripts/make_thumos_annotations.py` builds the annotations from the distributed files;
# `etadlite check-data e2e_thumos_tsp` counts and checks; `etadlite plan e2e_thumos_tsp` predicts
# the memory. Then, on a GPU, any one of these:
#
# ```
# etadlite notebook 06_end_to_end_thumos -p profile full -p data_root ../data/thumos-14
# cd notebooks && papermill 06_end_to_end_thumos.ipynb out.ipynb \
#     -p profile full -p data_root ../data/thumos-14
# etadlite train e2e_thumos_tsp
# torchrun --nproc_per_node=4 -m etadlite train e2e_thumos_tsp
# sbatch data_scripts/train_slurm.sh e2e_thumos_tsp
# ```
#
# The notebook's `train` takes the words that would follow `etadlite train`, such as `-p train
# "thumos_i3d training.epochs=3"`: stored features need no GPU. All resume: the notebook when it is
# run again with the same `out_dir`, the command with `--resume last`. Nobody has published a number
# for this training. On stored features (of *I3D*, a frozen encoder) the toolbox *OpenTAD* reaches
# 55.6 on average, 67.7 at tIoU 0.3 and 38.4 at 0.7: the preset `thumos_i3d`. This project has run
# neither on the real data.

# %% metrics
run.finish(
    {"average mAP (%)": round(100 * report.average, 1)},
    kept=["the training"] if already else [],
    per_tiou=dict(zip(map(str, report.tiou), report.per_tiou, strict=True)),
    seconds_per_step=report.seconds_per_step,
    training_windows=len(train_data),
    overlap={str(o): dict(zip(map(str, parts), measured[o], strict=True)) for o in overlaps},
    merging=scores,
)
print("written to out_dir: metrics.json, pictures and the run's folder")

# %% summary [markdown] tags=["slide"]
# ## Summary
#
# - A window is N snippets at a fixed stride; windows overlap by half.
# - A training window keeps an action if more than 90 % of it lies inside; `Ambiguous` is no class.
# - Which actions are never learnt can be predicted from window, overlap and length.
# - Detections of all windows are merged by soft-NMS, and neighbours vote on where a segment lies.

# %% limits [markdown] tags=["slide-more"]
# ## Limits
#
# The rehearsal proves the path, not the number: the videos are short, so there are few windows, and
# the training has only a few epochs. Windows see nothing beyond their borders; an action longer
# than a window can't be found whole at all.

# %% references [markdown]
# ## References
#
# - S. Liu et al., *ETAD: Training Action Detection End to End on a Laptop*, CVPR Workshops 2023,
#   [arXiv:2205.07134](https://arxiv.org/abs/2205.07134).
# - H. Idrees et al., *The THUMOS Challenge on Action Recognition for Videos "in the Wild"*, CVIU
#   2017: data and protocol.
# - N. Bodla et al., *Soft-NMS*, ICCV 2017.
# - L. Wang et al., *UntrimmedNets for Weakly Supervised Action Recognition and Detection*, CVPR
#   2017.
# - S. Liu et al., *OpenTAD*, [github.com/sming256/OpenTAD](https://github.com/sming256/OpenTAD):
#   the windows and their merging.

# %% questions-text [markdown]
# ## Questions
#
# Five questions have choices, and each choice is explained. Three questions are to be answered in
# words; write your answer before you unfold what counts. In JupyterLab, run the cell and press the
# buttons.

# %% questions tags=["alone"]
from etadlite.course.quiz import show_quiz

show_quiz("06_end_to_end_thumos")
