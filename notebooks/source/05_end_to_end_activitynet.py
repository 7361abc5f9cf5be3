# %% card [markdown] tags=["slide"]
# # 5 · End to end on ActivityNet-1.3: the full training, rehearsed
#
# **The question.** The paper trains its largest system for 18 hours. How do you know *before* that
# the data are right, that the memory suffices, that the run can be stopped, and that its number can
# be compared with the published one?
#
# **You will** walk through the [protocol](glossary.md#protocol) of ActivityNet-1.3, write its rules
# in a few lines, plan memory and hours, train, stop and resume, and look into the parts of the
# result. With the profiles `smoke` and `laptop` this is a **rehearsal** on generated videos; with
# `full` the same cells are the real training.
#
# **You need** PyTorch and the notebooks 00 to 02.
#
# **What it takes**, from recorded runs:
#
# <!-- card, full: ActivityNet-1.3 -->
#
# **Shapes** have one legend everywhere: **B** videos, **N** snippets, **F** frames, **C** channels,
# **T** cells of time, **P** proposals.

# %% parameters-text [markdown]
# ### Parameters
#
# Run the notebook as it is, or change a value here first. `smoke` only proves that everything runs;
# its numbers mean nothing. For `full`, `data_root` is the folder of ActivityNet-1.3, such as
# `../data/activitynet-1.3`, and `train` what follows `etadlite train`: a preset (`e2e_anet_tsp`, or
# `anet_tsp` on stored features) and changes.
# `etadlite check-data e2e_anet_tsp` says what is missing. Paths are relative to `notebooks/`.

# %% parameters tags=["parameters"]
# Parameters of this notebook; papermill can replace each of them.
profile = "laptop"  # smoke, laptop or full
data_root = "../data"  # where the generated videos are kept; for full: of ActivityNet-1.3
out_dir = "../runs/05_end_to_end_activitynet"  # pictures, metrics, weights
seed = 0  # governs weights, sampling and order
device = "auto"  # auto, cpu, cuda or mps
interactive = "auto"  # bars and sliders: true, false or auto
train = "e2e_anet_tsp"  # for full: a preset and changes to its settings

# %% setup
import json

import numpy as np
import torch

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
    full=RealData("ActivityNet-1.3", ("e2e_anet_tsp", "anet_tsp"), train),
)

# %% method-text [markdown] tags=["slide"]
# ## Where we are
#
# This notebook is about what surrounds the training step: the rules of the data set before it, and
# above all the **test** after it, where a classifier names the [segments](glossary.md#segment) and
# [mAP](glossary.md#mAP) judges them. The three passes in the middle are those of notebook 02.

# %% method tags=["slide-more"]
from etadlite.viz.method import draw_method

alt = "The method in one picture: three passes; the test is lit"
run.show(draw_method("test"), "method", alt)

# %% protocol-text [markdown] tags=["slide"]
# ## 1 · The protocol
#
# A **protocol** is everything that must be equal before two numbers may be compared. That of
# ActivityNet-1.3, a collection of web videos of 200 classes:
#
# - **Subsets.** 10,024 videos to train on and 4,926 to validate on; the [labels](glossary.md#label)
#   of the test videos are secret, so papers report *[validation](glossary.md#validation)*. Videos
#   disappear from the web: 4,728 of these can still be found, and published numbers count them.
# - **Blocked list.** A file with names of videos that are broken; they are left out. (The published
#   file names 31 of the 4,728, too: 4,697 remain, and `data.blocked=[]` keeps all.)
# - **One label per video.** All [actions](glossary.md#action) of a video have the same class (in
#   all but 11 of 14,377 videos).
# - **The 1 % rule.** Training drops actions shorter than 1 % of their video.
# - **Score.** mAP (mean [average precision](glossary.md#average-precision), notebook 01) at ten
#   [thresholds](glossary.md#threshold) of temporal IoU, 0.50 to 0.95 in steps of 0.05, and their
#   average.
#
# The third point shapes the system. If a video has one label, one can ask a strong *classifier of
# whole videos* for it, and the [detector](glossary.md#detector) only has to say **where** something
# happens. Such a detector is **[class-agnostic](glossary.md#class-agnostic)**.

# %% rehearsal-text [markdown]
# Our generated videos have several classes each. For the rehearsal we follow ActivityNet's rules:
# a video gets *one* label, the class that it shows most often, and all its actions carry it.


# %% rehearsal
import collections

from etadlite.stickfigures.dataset import make_dataset


def one_label_per_video(database):
    for entry in database.values():
        names = [action["label"] for action in entry["annotations"]]
        most = collections.Counter(names).most_common(1)[0][0]
        for action in entry["annotations"]:
            action["label"] = most


# %% settings-text [markdown]
# Settings are one checked tree. A **[preset](glossary.md#preset)** is a function that returns a
# complete one, and `section.key=value` changes it. `e2e_anet_tsp` is the published training; its
# [encoder](glossary.md#encoder), an R(2+1)D-34, comes from **[TSP](glossary.md#TSP)**, a
# pre-training made for [detection](glossary.md#detection). The rehearsal takes the small videos and
# the tiny encoder of `e2e_stickfigures`, and the protocol of `e2e_anet_tsp`.

# %% settings
from etadlite.presets import preset

full, classifier_file = run.profile == "full", run.out / "classifier.json"
paper, settings = preset("e2e_anet_tsp"), run.settings  # the latter in full only
if not full:
    database = json.loads(make_dataset(run.data, run.size, progress=run.interactive).read_text())
    one_label_per_video(database["database"])
    (run.out / "annotations.json").write_text(json.dumps(database))
    changes = [
        f"data.annotations={run.out / 'annotations.json'}",
        f"data.videos={run.data / 'videos'}",
        f"data.cache={run.data / 'frames'}",
        'data.blocked=["validation_00003"]',
        f"inference.classifier={classifier_file}",
        f"inference.tiou={json.dumps(paper.inference.tiou)}",
        "detector.classes=[]",  # class-agnostic
        "data.snippet_rule=ends",
        "data.min_action=0.025",  # at 1 %, no action of these videos would be dropped
        f"seed={run.seed}",
        *run.changes,
    ]
    if run.profile == "laptop":
        changes += ["training.epochs=6", "training.test_every=1"]
    settings = preset("e2e_stickfigures", changes)
print("preset", settings.name)

# %% subsets
from etadlite.data.split import read_split

splits = {
    part: read_split(settings.data, training=part == "training")
    for part in ("training", "validation")
}
for part, videos in splits.items():
    found = [len({action.label for action in video.actions}) for video in videos]
    actions = sum(len(video.actions) for video in videos)
    print(f"{part}: {len(videos):,} videos, {actions:,} actions, {max(found)} label(s) per video")

# %% timeline tags=["slide"]
from etadlite.runs.pictures import frames_of
from etadlite.viz import draw_timeline

video = splits["validation"][0]
truth = [{"segment": [a.start, a.end], "label": a.label} for a in video.actions]
frames = frames_of(settings.data, video.name)
figure = draw_timeline(frames, video.duration, {"true": truth}, title=f"test video {video.name}")
run.show(figure, "one_label", f"Frames of {video.name} above its true actions, all of one label")

# %% timeline-see [markdown] tags=["slide-more"]
# **What to see.** There are several actions and one label. The label is a question about the whole
# video, which the classifier answers. Where the bars begin and end is a question for the detector.

# %% short-text [markdown] tags=["slide"]
# ### The 1 % rule
#
# A video is laid out on T = 128 **[cells](glossary.md#cell)** of time (64 in the rehearsal). An
# action of less than 1 % of the video is shorter than 1.3 cells: the detector could hardly mark it.
# Training drops it; the test keeps it, because the test must not leave out what is difficult.


# %% short
def long_enough(video, share):
    return [a for a in video.actions if a.end - a.start > share * video.duration]


share = settings.data.min_action
every = sum(len(video.actions) for video in splits["training"])
kept = sum(len(long_enough(video, share)) for video in splits["training"])
print(f"longer than {100 * share:g} % of the video: {kept:,} of {every:,} actions")

# %% short-equal
from etadlite.training.loop import open_split

train_data = open_split(settings, training=True)  # videos are decoded when they are asked for
for number, video in enumerate(splits["training"][:4]):
    assert len(train_data[number].actions) == len(long_enough(video, share))
print("the package keeps the same actions")

# %% short-note [markdown]
# In the **released code**, which the paper's authors published, this filter compares with the wrong
# name of the subset and never takes effect. It is the first of six differences; section 4 has all.

# %% ends-text [markdown] tags=["slide"]
# ### Where the snippets lie: the rule "ends"
#
# A **[snippet](glossary.md#snippet)** is F consecutive frames. N of them are spread over a video of
# any length: the first starts with the video, the last ends with it, and the others start at even
# distances in between. (Our own default, "cells", puts each in the middle of its cell.) The
# published weights and numbers belong to "ends".


# %% ends
def snippet_starts(frames, snippets, length):
    room = max(frames - (length - 1) - 1, 0)  # for the last snippet's start
    return np.round(np.arange(snippets) * room / (snippets - 1)).astype(int)


cells, length = settings.data.snippets, settings.data.frames
starts = snippet_starts(900, cells, length)
print("a video of 900 frames: snippets start at", starts[:4], "...", starts[-2:])

# %% ends-equal
from etadlite.data.snippets import snippet_frames

for frames in (30, 900, 1801, 4000):
    ours = snippet_starts(frames, cells, length)
    theirs = snippet_frames(frames, cells, length, rule="ends")
    assert (ours.clip(0, frames - 1) == theirs[:, 0]).all()
print("equal to the package's")

# %% ends-picture tags=["slide-more"]
from matplotlib.figure import Figure

figure = Figure(figsize=(9, 3), layout="constrained")
axis = figure.subplots()
middles = (np.arange(cells) + 0.5) * 900 / cells
for colour, rule in zip(COLOURS, ("ends", "cells"), strict=False):
    chosen = snippet_frames(900, cells, length, rule=rule)
    off = chosen[:, 0] + length / 2 - middles
    axis.plot(off, ".-", color=colour, label=f"rule {rule}")
axis.set(xlabel="snippet", ylabel="frames off its cell's middle", title="A video of 900 frames")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
run.show(figure, "ends", "How far snippets lie off the middles of their cells under two rules")

# %% ends-see [markdown]
# **What to see.** Under "ends" the snippets drift: they lie early at the start and late at the end
# of the video (or the other way round, where snippets are longer than cells). The drift is small.
# But weights that were trained under one rule and are tested under the other lose precision at high
# thresholds, so the rule belongs to the protocol.

# %% cells-text [markdown] tags=["slide"]
# ### Every video becomes T cells
#
# [Features](glossary.md#feature), stored at a fixed rate, are as long as their video, and are
# *resized* to T cells. Videos are simply sampled at N = T places. Either way a cell of a long video
# lasts longer. What does that cost? A boundary between two cells is off by up to half a cell.

# %% cells
from etadlite.data.timegrid import TimeGrid

for seconds in (10, 60, 120, 240):
    grid = TimeGrid.over_video(seconds, 128)
    print(f"{seconds:4} s: a cell lasts {grid.seconds_per_cell:5.2f} s")

# %% resize
from etadlite.data.features import resize_features

stored = torch.arange(300, dtype=torch.float32)[None]  # [C, T'], a video's stored features
resized = resize_features(stored, 128)
print("resized:", list(resized.shape), "first", resized[0, :4].tolist())
by_middle = (torch.arange(128) + 0.5) * 300 / 128 - 0.5  # what lies at the middles of the cells
print(f"off a straight line by at most {(resized[0] - by_middle)[2:-2].abs().max():.3f}")
assert (resized[0] - by_middle)[2:-2].abs().max() < 0.5

# %% fuse-text [markdown] tags=["slide"]
# ## 2 · The classifier that names the segments
#
# The detector proposes segments with a score. A classifier that others trained (on ActivityNet:
# **CUHK**'s, distributed as a file of scores) names the video's classes. They are
# **[fused](glossary.md#fused)** by multiplication: each segment is reported with each of the two
# best classes, and its score is that of the segment times that of the class.
#
# In the rehearsal we write such a file from the true labels: each video gets its right class with a
# chance of 9 in 10, and a random class otherwise.

# %% classifier
names = sorted({a.label for part in splits.values() for v in part for a in v.actions})


def stand_in(accuracy, draws):
    scores = {}
    for video in splits["validation"]:
        right = draws.random() < accuracy
        says = names.index(video.actions[0].label) if right else int(draws.integers(len(names)))
        noise = draws.random(len(names)) * 0.2
        noise[says] = 0.8
        scores[video.name] = noise.tolist()
    return {"results": scores, "class": names}


if not full:
    classifier_file.write_text(json.dumps(stand_in(0.9, np.random.default_rng(run.seed))))

# %% top
from etadlite.runs.testing import video_classes

test_data = open_split(settings, training=False)
best_classes = video_classes(settings, test_data)  # video -> its best classes with their scores
for name, best in list(best_classes.items())[:3]:
    print(name, [(label, round(score, 2)) for label, score in best])
right = [
    best_classes[v.name][0][0] == v.actions[0].label for v in splits["validation"] if v.actions
]
print(f"the best class is right for {100 * np.mean(right):.0f} % of the test videos")

# %% assignment-setup tags=["assignment"]
import torch

from etadlite.course import check

# %% exercise-1-text [markdown]
# ### Exercise 1 · Fusion with the best classes (medium, 10 minutes)
#
# `scores` [S] are those of a video's segments, `classes` [K] those of the classifier. Return the
# scores [S, k] of every segment with the k best classes, the best class first.
#
# Replace the `...` by your code and run the cell. The checker says whether it is right, and what is
# wrong if it is not. A right answer is saved in `my_etad.py` (01 explains this file) and used
# below. If you skip an exercise, the package's function is used.
#
# <details><summary>Hint</summary>
#
# `classes.topk(k).values` are the k best, in order. `scores[:, None]` is a column; a column times a
# row is a table.
#
# </details>


# %% exercise-1
def fuse(scores, classes, k):
    # BEGIN SOLUTION
    return scores[:, None] * classes.topk(k).values
    # END SOLUTION


check("fuse", fuse)
fuse = run.mine("fuse", fuse)

# %% fuse-equal
from etadlite.inference.postprocess import fuse_classes

segments = torch.tensor([[3.0, 9.0], [20.0, 31.0]])
confidences = torch.tensor([0.9, 0.5])
_, packaged, labels = fuse_classes(segments, confidences, best)
table = fuse(confidences, torch.tensor([weight for _, weight in best]), len(best))
print(list(zip(labels, table.flatten().tolist(), strict=True)))
assert torch.allclose(table.flatten(), packaged)

# %% rates-text [markdown] tags=["slide"]
# ## 3 · Two learning rates
#
# The detector starts from random weights. The encoder starts from weights that took other people
# weeks to train. One optimiser, **[AdamW](glossary.md#AdamW)**, trains both, in two groups. The
# published rates are 5e-4 for the detector and 5e-7 for the encoder, a *thousandth* of it. Why is
# the encoder's rate so small?
#
# Adam divides each weight's gradient by its own running size. So a step moves every weight by about
# the learning rate, *however small the gradient is*, and over a training no weight can go much
# further than the sum of the rates.
#
# **Predict first.** How far may an encoder weight of size 0.02 move in 6 epochs of 2,400 steps,
# with either rate? (The rate is divided by ten in the last epoch.)

# %% drift
steps = 5 * 2400 + 2400 / 10
for what, rate in (("encoder", 5e-7), ("detector", 5e-4)):
    print(f"with the rate of the {what}, {rate:g}: up to {steps * rate:.4f}")

# %% drift-see [markdown] tags=["slide-more"]
# **What to see.** At 5e-7 a weight of size 0.02 may change by up to 0.0061, about a third of its
# size: it is *tuned*. At 5e-4 it may change by up to 6.12, three hundred times its size: nothing of
# the pre-training needs to remain. In addition, the encoder's gradient is noisy at first, because
# it comes through a detector that has learned nothing yet. Our tiny encoder takes a larger rate:
# its rehearsal has hundreds of steps, not thousands, and a wide gap from its
# [studio](glossary.md#studio) to cross.

# %% groups
from etadlite.model.system import System
from etadlite.training.loop import make_optimizer

torch.manual_seed(run.seed)
system = System(settings)
rates = {"detector": settings.training.detector_lr}
if system.encoder is not None:  # None where it is frozen and its features are stored
    rates["encoder"] = settings.training.encoder_lr
groups = [
    {"params": [p for p in getattr(system, part).parameters() if p.requires_grad], "lr": rate}
    for part, rate in rates.items()
]
by_hand = torch.optim.AdamW(groups, weight_decay=settings.training.weight_decay)
packaged = make_optimizer(system, settings.training)
for ours, theirs in zip(by_hand.param_groups, packaged.param_groups, strict=True):
    size = sum(p.numel() for p in ours["params"])
    print(f"{size:10,} weights at a rate of {ours['lr']:g}")
    assert ours["lr"] == theirs["lr"]
    assert size == sum(p.numel() for p in theirs["params"])

# %% plan-text [markdown] tags=["slide"]
# ## 4 · Before the run: memory, hours, differences
#
# **Memory.** `plan` builds the system with *fake* tensors, which have shapes but no numbers, runs a
# step, and adds up what lives at once. It needs neither data nor a GPU. This is the published size:
# four videos of 128 snippets, in [chunks](glossary.md#chunk) of four.

# %% plan tags=["slide-more"]
from etadlite.memory.plan import memory_table, plan

planned = plan(paper.changed(["device=cuda", "training.precision=fp32"]))
print(memory_table(planned))

# %% plan-see [markdown]
# **What to see.** Weights, gradients and AdamW's two running means take 55 % of the total, and they
# do not grow with the video. The [activations](glossary.md#activation) are those of one chunk, not
# of 512 snippets. The *kept [prefix](glossary.md#prefix)* is the [frozen](glossary.md#frozen)
# [stages](glossary.md#stage)' output for the sampled snippets, so that it is not computed twice.
# The paper measured 1.3 GB per video; `etadlite plan e2e_anet_tsp` prints this table for your
# changes.

# %% hours-text [markdown]
# **Hours.** One snippet through R(2+1)D-34 takes 152 GFLOP (10⁹ operations) forwards, 27 % of it
# behind the frozen stages. All snippets are encoded once. 40 of 128 are encoded again behind the
# prefix, forwards (1) and backwards (about 2):


# %% hours
def training_hours(videos, epochs, snippets, ratio, tflops):
    forward, trained = 152e9, 0.27
    a_snippet = forward * (1 + 3 * ratio * trained)
    return videos * epochs * snippets * a_snippet / (tflops * 1e12) / 3600


for speed in (10, 20, 40):
    hours = training_hours(10_024, 6, 128, 40 / 128, speed)
    print(f"at {speed} TFLOP/s in effect: {hours:4.1f} h; with all snippets", end=" ")
    print(f"{training_hours(10_024, 6, 128, 1, speed):4.1f} h")

# %% hours-see [markdown]
# The formula counts what *this* package computes: it keeps the prefix of the sampled snippets. The
# paper's code encodes these snippets again from the first frame on, so per snippet its step takes
# not 1 + 3 · 0.27 · 40/128 = 1.25 forward passes but 1 + (1 + 2 · 0.27) · 40/128 = 1.48. By that
# count the paper's 18 hours mean about 27 TFLOP/s (10¹² operations per second) all the time. At the
# same speed this package would take 15 hours. The detector is left out, because it costs little.

# %% differences-text [markdown]
# **Differences by name.** Where this package departs from the published code (the authors' own, or
# **OpenTAD**, a toolbox that holds ETAD, too), a setting takes you back, and a test in
# `tests/test_published_differences.py` shows that it does:
#
# | published code | setting that does the same |
# |---|---|
# | the filter of short actions never takes effect | `data.min_action=0` |
# | losses draw positives among the negatives | `losses.guarded=false` |
# | soft-NMS loses the last segment | `inference.keep_last=false` |
# | proposals outside the video are reported | `inference.keep_outside=true` |
# | frames are decoded at full size | `data.decode_size` |
# | OpenTAD's "ratio 0.3" gives every snippet a gradient | `sampling.snippet_ratio=1` |

# %% differences
as_released = paper.changed(
    [
        "data.min_action=0",
        "losses.guarded=false",
        "inference.keep_last=false",
        "inference.keep_outside=true",
    ]
)
for section in ("data", "losses", "inference"):
    ours, theirs = (getattr(s, section).model_dump() for s in (paper, as_released))
    for key, value in ours.items():
        if value != theirs[key]:
            print(f"{section}.{key}: {value} here, {theirs[key]} as released")

# %% resume-text [markdown] tags=["slide"]
# ## 5 · Can it be stopped?
#
# A cluster ends jobs by a signal, SIGTERM. The training then ends between two steps and leaves its
# **state**: weights, the optimiser's running means, and the position in the data. Random numbers
# need not be saved, because each follows from the seed and the position. So a resumed run must
# repeat the uninterrupted one *exactly*. We try it with six videos: once without a stop, and once
# stopped after two steps.

# %% few
few_files = {"training": splits["training"][:6], "validation": splits["validation"][:1]}
kept_names = {video.name for part in few_files.values() for video in part}
everything = json.loads(settings.data.annotations.read_text())
everything["database"] = {
    name: entry for name, entry in everything["database"].items() if name in kept_names
}
(run.out / "few.json").write_text(json.dumps(everything))
short = [f"data.annotations={run.out / 'few.json'}", "training.epochs=2", "training.batch_size=2"]
few = settings.changed(short)
print(f"{len(few_files['training'])} videos, 2 epochs of steps of {few.training.batch_size}")

# %% straight
import signal

from etadlite.base.errors import StoppedError
from etadlite.training.loop import prepare, train
from etadlite.training.loop import run as go_on
from etadlite.training.state import STATE

straight, broken = [], []
train(few, log=straight.append, progress=False)


def log_and_stop(record):
    broken.append(record)
    if record["step"] == 2:
        signal.raise_signal(signal.SIGTERM)  # as a scheduler does


try:
    train(few, log=log_and_stop, folder=run.out / "stopped", progress=False)
except StoppedError as stop:
    print(f"after {len(broken)} steps:", str(stop).partition(";")[0])

# %% resumed
training, data = prepare(few, run.out / "stopped" / STATE)
go_on(training, data, log=broken.append, folder=run.out / "stopped", progress=False)
losses = [[record["loss"] for record in records] for records in (straight, broken)]
for number, pair in enumerate(zip(*losses, strict=True), 1):
    print(f"step {number}: straight {pair[0]:.6f}, stopped and resumed {pair[1]:.6f}")
assert np.allclose(*losses, rtol=1e-2 if run.device == "cuda" else 1e-6)

# %% resume-see [markdown]
# **What to see.** The losses are the same to the last digit (on a GPU, nearly). `run_training(...,
# resume=True)` and `etadlite train ... --resume` do this with a run's folder.

# %% train-text [markdown] tags=["slide"]
# ## 6 · The training
#
# `run_training` trains, tests and draws into one folder. With `resume=True` it continues where the
# run of that folder stopped, so this cell can simply be executed again. In JupyterLab a bar shows
# the time that is left, and the curves grow beside it; elsewhere one line per epoch appears.
# `tensorboard --logdir` on the folder shows the curves from anywhere while it trains.

# %% train
from etadlite.runs.run import run_training

folder = run.out / f"{run.profile}_seed{run.seed}"
folder.mkdir(parents=True, exist_ok=True)
already = (folder / "config.json").exists()
with run.watching(settings.name, folder, settings.training.epochs, resume=True):
    report = run_training(settings, folder, resume=True, progress=run.interactive)
print(f"average mAP {100 * report.average:.1f} %, {report.seconds_per_step:.2f} s per step")

# %% curves tags=["slide-more"]
from etadlite.training.recorder import read_metrics
from etadlite.viz import draw_curves

records = read_metrics(folder)
curves = draw_curves({settings.name: records})
run.show(curves, "curves", "Left: training loss over epochs. Right: average mAP on test videos")

# %% curves-see [markdown] tags=["slide-more"]
# **What to see.** On the left is the loss: single steps are faint, and their mean is bold. On the
# right is mAP on the test videos. It is good for watching a run, because the loss alone doesn't
# show whether the detector gets better on videos that it has not learned from.

# %% choose-text [markdown]
# But don't choose the epoch by it. Who stops where the test mAP is highest has *selected on the
# test set*: the number is then the best of several, partly by luck, and too good for new videos.
# The published protocol fixes the number of epochs beforehand and tests the last one, and so does
# `run_training`. If you want to choose an epoch, put some training videos aside and choose on
# those.

# %% result-text [markdown]
# For this training on ActivityNet, the released code reports 56.2 / 39.9 / 10.2 % at
# [tIoU](glossary.md#tIoU) 0.5 / 0.75 / 0.95 and 38.7 % on average, and OpenTAD reports 55.8 / 40.1
# / 10.3 % and 38.8 %. So differences of some tenths mean nothing. Trained on stored features, it is
# 37.8 %.

# %% result
for tiou, value in zip(report.tiou, report.per_tiou, strict=True):
    print(f"mAP at tIoU {tiou:.2f}: {100 * value:5.1f} %")

# %% exercise-2-text [markdown]
# ### Exercise 2 · mAP at one threshold (harder, 20 minutes)
#
# The first of these numbers shall come from your own code. mAP is the mean over the classes of
# **average precision** (AP), and AP is what you write: `scores` [P] are those of all detections of
# one class, in any order, and `overlaps` [P, A] their tIoU with the A actions of this class; it is
# 0 for an action of another video.
#
# Go through the detections from the highest score to the lowest. Each one takes the action on which
# it lies best *of those that are still free*, if that tIoU is at least `threshold`; then it is
# right. After every detection, *[precision](glossary.md#precision)* is the share of right ones so
# far. For each right detection, take the highest precision from there to the end of the list.
# Return the sum of these, divided by A.
#
# <details><summary>Hint</summary>
#
# Copy `overlaps`, and set the column of an action that is taken to -1: then `argmax` finds a free
# one. `max(precisions[n:])` is the highest precision from place n on. There may be no detection at
# all.
#
# </details>


# %% exercise-2
def average_precision(scores, overlaps, threshold):
    # BEGIN SOLUTION
    free, right = overlaps.clone(), []
    for row in scores.argsort(descending=True, stable=True).tolist():
        best = int(free[row].argmax())
        right.append(bool(free[row, best] >= threshold))
        if right[-1]:
            free[:, best] = -1
    so_far = torch.tensor(right, dtype=torch.float64).cumsum(dim=0).tolist()
    precisions = [found / (n + 1) for n, found in enumerate(so_far)]
    total = sum(max(precisions[n:]) for n, good in enumerate(right) if good)
    return total / overlaps.shape[1]
    # END SOLUTION


check("average_precision", average_precision)
average_precision = run.mine("average_precision", average_precision)

# %% by-hand-text [markdown]
# What remains is to sort detections and actions by class, and to compute the overlaps:

# %% by-hand
from etadlite.base.segments import tiou
from etadlite.runs.testing import of_annotated_classes

written = json.loads((folder / "predictions.json").read_text())
predictions = of_annotated_classes(written, settings.data.annotations)
of_class = collections.defaultdict(lambda: ([], []))  # -> detections, actions
for video in splits["validation"]:
    for item in predictions["results"].get(video.name, []):
        of_class[item["label"]][0].append((video.name, *item["segment"], item["score"]))
    for action in video.actions:
        of_class[action.label][1].append((video.name, action.start, action.end))

by_class = []
for found, actions in (pair for pair in of_class.values() if pair[1]):
    spans, wanted = (
        torch.tensor([row[1:3] for row in rows], dtype=torch.float64).view(-1, 2)
        for rows in (found, actions)
    )
    together = torch.tensor([[a[0] == d[0] for a in actions] for d in found]).view(-1, len(actions))
    scores = torch.tensor([row[3] for row in found], dtype=torch.float64)
    by_class.append(average_precision(scores, tiou(spans[:, None], wanted) * together, 0.5))
print(f"mAP at tIoU 0.5: {100 * np.mean(by_class):.2f} %, package {100 * report.per_tiou[0]:.2f} %")
assert abs(np.mean(by_class) - report.per_tiou[0]) < 1e-3  # equal scores may change places

# %% detections tags=["slide"]
pictures = sorted((folder / "pictures").glob("timeline_*.png"))
run.show_file(pictures[0], "Detections of the trained system below the true actions of a video")

# %% detections-see [markdown] tags=["slide-more"]
# **What to see.** The number on a bar is its score, and a paler bar has a lower score. Where a bar
# has the right ends and the wrong name, the classifier was wrong.

# %% breakdown-text [markdown] tags=["slide"]
# ## 7 · Where is it good?
#
# One number hides much. The **breakdown** gives average precision and [recall](glossary.md#recall)
# by class and by length of the action, from XS to XL. The published borders are 30, 60, 120 and 180
# s; the actions of our videos last 2 to 8 s.

# %% breakdown tags=["slide-more"]
from etadlite.evaluation.error_analysis import breakdown
from etadlite.viz.breakdown import draw_breakdown

edges = (30.0, 60.0, 120.0, 180.0) if full else (3.0, 4.0, 5.0, 6.5)
judged = {
    "subset": settings.data.test_subset,
    "tiou": settings.inference.tiou,
    "blocked": settings.data.blocked,
}
parts = breakdown(settings.data.annotations, predictions, edges=edges, **judged)
figure = draw_breakdown(parts, edges, title=settings.name)
run.show(figure, "breakdown", "Precision and recall by class, and by length of the action")

# %% breakdown-see [markdown]
# **What to see.** By length: the shortest actions, XS, are found worst, because a boundary that is
# off by one cell costs a short action far more tIoU than a long one.
#
# The diamonds are the **recall**: the share of actions that *some* detection in the list fits.
# Average precision can never exceed it, so a diamond above its bar says nothing by itself. The
# *distance* says something: as far as recall goes, the segments are there, and what is missing to
# it is lost in the ranking, where wrong detections stand above right ones.
#
# By class, these bars mean little in the rehearsal: each video carries the label that it shows most
# often, so the actions under "throw" include kicks and jumps of videos in which throws are most
# frequent. On ActivityNet, where a video has one class, a class with high recall and a precision
# near 0 is one that the classifier gets wrong.

# %% dial-text [markdown] tags=["slide"]
# ## 8 · One dial: how good the classifier is
#
# The detector never names a class. So how much of mAP is due to the classifier? We remove the names
# from the detections, and name them by classifiers that are right for a known share of the videos.
#
# **Predict first.** If a video is named wrongly, all its detections are wrong. Then mAP at accuracy
# *a* should be about *a* times mAP at 1. Will it lie above that line, or below?

# %% bare
segments_of = {}  # video -> [(segment, score without the class's)]
for video in splits["validation"]:
    label, weight = best_classes[video.name][0]
    items = predictions["results"].get(video.name, [])
    segments_of[video.name] = [
        (item["segment"], item["score"] / weight) for item in items if item["label"] == label
    ]
print(sum(map(len, segments_of.values())), "segments without names")

# %% dial
from etadlite.evaluation import mean_average_precision
from etadlite.inference.classifiers import LabelScores


def named(accuracy, draws):
    scores = stand_in(accuracy, draws)
    classifier = LabelScores(scores["results"], scores["class"])
    results = {}
    for name, items in segments_of.items():
        labels, weights = zip(*classifier.top(name, 2), strict=True)
        table = fuse(torch.tensor([score for _, score in items]), torch.tensor(weights), 2)
        results[name] = [
            {"segment": segment, "label": label, "score": score}
            for (segment, _), row in zip(items, table.tolist(), strict=True)
            for label, score in zip(labels, row, strict=True)
        ]
    found = mean_average_precision(settings.data.annotations, {"results": results}, **judged)
    return 100 * found.average


accuracies, repeats = (0.0, 0.25, 0.5, 0.75, 1.0), 1 if full else 4
measured = {
    a: [named(a, np.random.default_rng([run.seed, n])) for n in range(repeats)] for a in accuracies
}

# %% dial-picture tags=["slide-more"]
means = {a: float(np.mean(values)) for a, values in measured.items()}
figure = Figure(figsize=(6, 3.6), layout="constrained")
axis = figure.subplots()
axis.plot(
    accuracies, [a * means[1.0] for a in accuracies], "--", color=COLOURS[7], label="predicted"
)
axis.plot(accuracies, list(means.values()), "o-", color=COLOURS[0], label="measured")
low, high = ([edge(v) for v in measured.values()] for edge in (min, max))
axis.fill_between(accuracies, low, high, color=COLOURS[0], alpha=0.2, label="range of draws")
axis.set(xlabel="share of videos named right", ylabel="average mAP (%)", ylim=(0, None))
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
assert means[1.0] >= means[0.0]
run.show(figure, "dial", "Average mAP against the share of videos that the classifier names right")

# %% dial-see [markdown]
# **What to see.** The line is a good first guess: end-to-end training improves *where*, and the
# classifier limits *what*. The answer to the question is "both". At accuracy 0 the curve lies
# **above** the line: the second class of a video is sometimes right. In the middle it lies
# **below**, here at 0.5 and 0.75: a video with a wrong name not only loses its own actions, it also
# adds false alarms to another class, with scores as high as those of right detections. The band
# shows how much four draws of wrong videos differ, which is a lot with so few videos.
#
# Two systems that use different classifiers can't be compared by mAP: the classifier's file belongs
# to the protocol, too.

# %% measured-text [markdown]
# ## 9 · Predicted against measured
#
# We predicted how far the encoder's weights can move: no further than about the sum of its rates.
# (Where features are stored, there is no encoder, so we take the detector's weights.) The plan
# predicted the memory; here is the plan of the rehearsal beside a measured step.

# %% moved
from safetensors.torch import load_file

from etadlite.training.loop import learning_rate_factor

torch.manual_seed(run.seed)
part, rate = list(rates.items())[-1]
before = getattr(System(settings), part).state_dict()
after = load_file(folder / "checkpoint.safetensors")
moved = torch.cat(
    [
        (after[f"{part}.{name}"] - value).abs().flatten()
        for name, value in before.items()
        if value.is_floating_point()
    ]
)
per_epoch = sum("loss" in record for record in records) / settings.training.epochs
places = (np.arange(round(per_epoch * settings.training.epochs)) + 0.5) / per_epoch
factors = [learning_rate_factor(settings.training, float(place)) for place in places]
reach = rate * sum(factors)
print(
    f"sum of the rates {reach:.2e}; moved {moved.median():.2e} (median), {moved.max():.2e} (most)"
)
assert moved.median() <= reach

# %% memory
from etadlite.data.datasets import collate
from etadlite.memory import measure
from etadlite.training.step import train_step
from etadlite.viz.memory import draw_memory

system = System(settings).to(run.device).train()
optimizer = make_optimizer(system, settings.training)
count = min(settings.training.batch_size, len(train_data))
batch = collate([train_data[n] for n in range(count)])
exact = settings.changed(["training.precision=fp32", f"training.batch_size={count}"])
train_step(system, batch, optimizer, exact)  # before it, there is no optimiser's state
with measure(system, optimizer, batch.inputs) as step:
    train_step(system, batch, optimizer, exact)
bars = {"predicted": plan(exact).rows, "measured": step.rows}
ratio = bars["predicted"].total / bars["measured"].total
print(f"predicted {ratio:.2f} of what was measured")
assert 0.7 < ratio < 1.4

# %% memory-picture
run.show(draw_memory(bars), "memory", "Memory of a step by part: predicted beside measured")

# %% memory-see [markdown]
# **What to see.** The two bars have about the same height, part by part.

# %% exercises [markdown]
# ## 10 · One more exercise

# %% exercise-3-text [markdown]
# ### Exercise 3 · How long will it take? (easy, 5 minutes)
#
# Return the hours of a training from its measured seconds per step. All `videos` are seen once per
# epoch, `batch` of them per step; a last, smaller batch is a step as well.
#
# <details><summary>Hint</summary>
#
# The steps per epoch are videos / batch, rounded up. Multiply by epochs and seconds, and divide by
# 3,600 seconds per hour.
#
# </details>


# %% exercise-3
def hours_left(videos, batch, epochs, seconds_per_step):
    # BEGIN SOLUTION
    steps = -(-videos // batch) * epochs
    return steps * seconds_per_step / 3600
    # END SOLUTION


check("hours_left", hours_left)

# %% full-run [markdown]
# ## 11 · The full run
#
# The data: `data_scripts/download.py` fetches what is open and says how to ask for the rest;
# `data_scripts/convert_videos.py` makes videos of 15 frames per second with a short side of 256
# pixels; `etadlite check-data e2e_anet_tsp` counts and checks. Then, on a GPU, any one of these:
#
# ```
# etadlite notebook 05_end_to_end_activitynet -p profile full -p data_root ../data/activitynet-1.3
# cd notebooks && papermill 05_end_to_end_activitynet.ipynb out.ipynb \
#     -p profile full -p data_root ../data/activitynet-1.3
# etadlite train e2e_anet_tsp
# torchrun --nproc_per_node=4 -m etadlite train e2e_anet_tsp
# sbatch data_scripts/train_slurm.sh e2e_anet_tsp
# ```
#
# `-p train "anet_tsp training.epochs=3"` gives the notebook the words that would follow `etadlite
# train`. All resume: the notebook when it is run again with the same `out_dir`, the command with
# `--resume last`. Batch and rates stay the same for any number of GPUs: they share the four videos
# of a step. Expect 38 to 39 % average mAP (published 38.7; this project has not run it), and by the
# formula above 10 to 41 hours on one GPU of 40 to 10 TFLOP/s.

# %% metrics
run.finish(
    {"average mAP (%)": round(100 * report.average, 1)},
    kept=["the training"] if already else [],
    per_tiou=dict(zip(map(str, report.tiou), report.per_tiou, strict=True)),
    seconds_per_step=report.seconds_per_step,
    classifier_right=float(np.mean(right)),
    dial={str(a): values for a, values in measured.items()},
    plan_bytes=planned.rows.total,
    plan_ratio=ratio,
    moved={"reach": reach, "median": float(moved.median()), "most": float(moved.max())},
)
print("written to out_dir: metrics.json, pictures and the run's folder")

# %% summary [markdown] tags=["slide"]
# ## Summary
#
# - A protocol is a set of rules: subsets, blocked videos, the 1 % filter, where snippets lie,
#   thresholds, and the classifier's file.
# - With one label per video, the detector says where, a classifier says what, and their scores are
#   multiplied.
# - Adam moves each weight by about its rate in every step; a pre-trained encoder gets a thousandth
#   of the detector's rate.
# - Memory and hours can be known before the run; a run that can't resume is not yet ready.

# %% limits [markdown] tags=["slide-more"]
# ## Limits
#
# The rehearsal proves the *path*, not the number: the encoder is tiny, the videos are generated,
# and the classifier is made from the labels. Nothing here says what ActivityNet will give; the
# published results do.

# %% references [markdown]
# ## References
#
# - S. Liu et al., *ETAD: Training Action Detection End to End on a Laptop*, CVPR Workshops 2023,
#   [arXiv:2205.07134](https://arxiv.org/abs/2205.07134).
# - F. Caba Heilbron et al., *ActivityNet*, CVPR 2015: data and protocol.
# - H. Alwassel et al., *Diagnosing Error in Temporal Action Detectors*, ECCV 2018: breakdowns.
# - I. Loshchilov, F. Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019: AdamW.

# %% questions-text [markdown]
# ## Questions
#
# Five questions have choices, and each choice is explained. Three questions are to be answered in
# words; write your answer before you unfold what counts. In JupyterLab, run the cell and press the
# buttons.

# %% questions tags=["alone"]
from etadlite.course.quiz import show_quiz

show_quiz("05_end_to_end_activitynet")
