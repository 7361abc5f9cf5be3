# %% card [markdown] tags=["slide"]
# # 0 · Quickstart: a detector that learns from raw video, on a laptop
#
# **The question.** A *temporal action [detector](glossary.md#detector)* watches a long video and
# answers: *what happens, from when to when?* Most detectors never see the pixels when they learn:
# they read *[features](glossary.md#feature)*, numbers that another network computed once. What is
# gained when that network, the *[encoder](glossary.md#encoder)*, learns as well? And how can that
# fit into a laptop's memory?
#
# **You will** generate a small set of videos, build a detector, train it *[end to
# end](glossary.md#end-to-end)*, from pixels to [detections](glossary.md#detection), with **ETAD**'s
# [sequential encoding](glossary.md#sequential-encoding), and compare three systems. On the way you
# predict what each step costs, then measure it.
#
# **You need** PyTorch (`nn.Module`, `backward()`), no knowledge of video, no graphics card and no
# download.
#
# **What it takes**, from recorded runs; [mAP](glossary.md#mAP) is explained in section 6:
#
# <!-- card -->
#
# **Shapes** have one legend everywhere: **B** videos, **N** snippets, **F** frames, **C** channels,
# **T** cells of time, **P** proposals. Each is explained where it first appears.

# %% parameters-text [markdown]
# ### Parameters
#
# Run the notebook as it is, or change a value here first. `smoke` only proves that everything runs;
# its numbers mean nothing. Paths are relative to `notebooks/`.

# %% parameters tags=["parameters"]
# Parameters of this notebook; papermill can replace each of them.
profile = "laptop"  # smoke, laptop or full
data_root = "../data"  # where the generated videos are kept
out_dir = "../runs/00_quickstart"  # pictures, table, metrics, weights
seed = 0  # governs weights, sampling and order
device = "auto"  # auto, cpu, cuda or mps
interactive = "auto"  # bars and sliders: true, false or auto

# %% setup
import copy

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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
# ## The method in one picture
#
# A training step has three passes. Only the middle one is familiar: a detector is trained on
# features. The first and the last belong to the encoder, and they are what lets it learn without
# filling the memory. You need not understand every part now: this notebook builds them all, and the
# small numbers name the notebook that explains a part in detail.

# %% method tags=["slide-more"]
from etadlite.viz.method import draw_method

alt = "Three passes: encode all without gradient; detector; encode a sample with gradient"
run.show(draw_method(), "method", alt)

# %% method-see [markdown]
# **What to see.** The grey hills at the bottom are *[activations](glossary.md#activation)*, the
# numbers that a network must remember until its gradient has come back. No hill belongs to all
# [snippets](glossary.md#snippet) at once: pass 1 remembers nothing, pass 2 holds the detector's
# hill, and pass 3 holds the hill of one [chunk](glossary.md#chunk) at a time. Only the features and
# their gradient stay from pass to pass, and they are small. Two things are **sampled**, which saves
# time: the [proposals](glossary.md#proposal) in pass 2 and the snippets in pass 3.

# %% data-text [markdown] tags=["slide"]
# ## 1 · The data: long videos, short actions
#
# Our videos are drawn by a program: a stick figure acts before a moving background, filmed by an
# unsteady hand. They are real H.264 files, and the [annotations](glossary.md#annotation) have the
# structure of *ActivityNet*, a well-known benchmark. A video is
# **[untrimmed](glossary.md#untrimmed)**: it lasts 30 to 120 seconds, and much of that time nothing
# of interest happens.
#
# For every video we know the **[ground truth](glossary.md#ground-truth)**: which
# [actions](glossary.md#action) it holds, and from which second to which. This is what a detector
# should report. The picture below shows it under the frames of a test video.

# %% data
from etadlite.stickfigures.classes import CLASSES
from etadlite.stickfigures.dataset import make_dataset

print("making the videos; those that exist are kept")
annotations = make_dataset(run.data, run.size, progress=run.interactive)
print(len(list((run.data / "videos").glob("*.mp4"))), "video files")
print("classes:", ", ".join(CLASSES))

# %% timeline tags=["slide-more"]
from etadlite.data.annotations import read_annotations
from etadlite.runs.pictures import strip
from etadlite.viz import draw_timeline

video = next(iter(read_annotations(annotations, "validation").values()))
print(f"{video.name} lasts {video.duration:.1f} s and has {len(video.actions)} actions:")
for action in video.actions:
    print(f"  {action.start:5.1f} s to {action.end:5.1f} s  {action.label}")
video_file = run.data / "videos" / f"{video.name}.mp4"
truth = [{"segment": [a.start, a.end], "label": a.label} for a in video.actions]
pictures = strip(video_file)  # a few frames, spread over the video
rows = {"true": truth}
figure = draw_timeline(pictures, video.duration, rows, title=video.name, labels=CLASSES)
run.show(figure, "ground_truth", f"Frames of {video.name} above bars for its true actions")

# %% timeline-see [markdown] tags=["slide-more"]
# **What to see.** A few short actions, and much time between them.

# %% pairs-text [markdown] tags=["slide"]
# **Predict first.** *Throw* and *catch* use the same poses; a catch is a throw played backwards.
# Could you name the action from one frame? How many frames
# would you need?

# %% pairs tags=["slide-more"]
from etadlite.stickfigures.dataset import studio_clips
from etadlite.stickfigures.scene import STUDIO, TARGET

throw = [CLASSES.index("throw")]
rows = {}
for place, scene in (("studio", STUDIO), ("video", TARGET)):
    clips, _ = studio_clips(1, 8, 96, seed=3, scene=scene, labels=throw)  # [1, 3, F, H, W]
    rows[f"throw, {place}"] = clips[0]
    rows[f"catch, {place}"] = clips[0][:, ::-1]  # the same frames, the last one first
figure = Figure(figsize=(12, 6.4), layout="constrained")
for axes, (name, clip) in zip(figure.subplots(4, 8), rows.items(), strict=True):
    for number, axis in enumerate(axes):
        axis.imshow(clip[:, number].transpose(1, 2, 0))
        axis.set(xticks=[], yticks=[])
    axes[0].set_ylabel(name)
run.show(figure, "pairs", "A throw, and the same frames backwards, a catch; studio and video")

# %% pairs-see [markdown]
# **What to see.** Each row is half a second. The second row has the frames of the first one in the
# opposite order, and so it shows a catch. No single frame can tell the two apart: the classes come
# in pairs that differ only in *motion*. (The tests of this project train a classifier on single
# frames; it stays at chance.)
#
# The upper rows are a clean **[studio](glossary.md#studio)**. The encoder that we start from was
# trained on such clips only. The lower rows show the same kind of movement in the world of our
# videos: other light, clothes, backgrounds, and a shaking camera. This **[domain
# gap](glossary.md#domain-gap)** stands for the gap between the web clips that real encoders are
# trained on and the videos that people want to search.

# %% snippets-text [markdown] tags=["slide"]
# ## 2 · From a video to snippets
#
# A minute of video is too much for a network to see at once. So the video is cut into **N** equal
# pieces of time, called **[cells](glossary.md#cell)**, and from the middle of each we take **F**
# consecutive frames: a **snippet**. Inside the model, time is measured in cells, from 0 to **T** =
# N; only the *[time grid](glossary.md#time-grid)* converts between cells and seconds.
# `demo_settings` holds every choice that a run makes.

# %% snippets
from etadlite.runs.demo import SYSTEMS, demo_settings
from etadlite.training.loop import open_split

print("systems:", *SYSTEMS, sep="\n  ")
settings = demo_settings("end to end, all snippets", run.data, run.seed, run.changes)
test_data = open_split(settings, training=False)
sample = test_data[0]  # decoded here; the frames are kept on disk for the next time
snippets = sample.inputs
print("snippets [N, 3, F, H, W]:", list(snippets.shape), snippets.dtype)

# %% cells
grid = sample.grid
print(f"a cell lasts {grid.seconds_per_cell:.2f} s in this video")
for cells_of, label in zip(sample.actions, sample.labels, strict=True):
    first, last = cells_of.tolist()
    begin, end = grid.to_seconds(cells_of).tolist()
    print(f"{CLASSES[label]:>7}: cells {first:4.1f} to {last:4.1f}, {begin:4.1f} s to {end:4.1f} s")

# %% features-text [markdown] tags=["slide"]
# ## 3 · Frozen features: the usual way
#
# An **encoder** turns each snippet into a **feature**: C numbers that describe it. Ours is a tiny
# [R(2+1)D](glossary.md#R(2+1)D), a network of convolutions over space, then over time. The
# *feature-based* way runs it once over all videos, stores the features, and never changes it again:
# it is **[frozen](glossary.md#frozen)**.

# %% features
from etadlite.encoders.build import build_encoder
from etadlite.model.chunks import encode_in_chunks

encoder = build_encoder(settings.encoder)
features = encode_in_chunks(encoder, snippets[None], settings.encoder.chunk_size)
size = sum(parameter.numel() for parameter in encoder.parameters())
print(f"an encoder of {size:,} parameters")
print("features [B, C, T]:", list(features.shape))
features_before = features  # for a comparison in section 6


# %% features-picture tags=["slide-more"]
def likeness(features):  # [C, T] -> [T, T], the cosine between the features of two cells
    centred = features - features.mean(dim=1, keepdim=True)  # what differs from the video's mean
    unit = torch.nn.functional.normalize(centred, dim=0)
    return unit.T @ unit


def draw_likeness(axis, features, title):
    image = axis.imshow(likeness(features), cmap="cividis", vmin=-0.4, vmax=1)
    for (first, last), label in zip(sample.actions.tolist(), sample.labels, strict=True):
        corner, length = (first - 0.5, first - 0.5), last - first
        axis.add_patch(Rectangle(corner, length, length, fill=False, edgecolor="white", lw=1.5))
        beside = {"ha": "left" if last < 0.9 * cells else "right", "va": "bottom"}
        axis.text(last, first, CLASSES[label], color="white", fontsize=8, **beside)
    axis.set(xlabel="cell", ylabel="cell", title=title, xlim=(-0.5, cells - 0.5))
    return image


cells = settings.data.snippets
figure = Figure(figsize=(7, 6), layout="constrained")
axis = figure.subplots()
image = draw_likeness(axis, features[0], "how alike are the features of two cells?")
figure.colorbar(image, label="cosine: 1 is alike, 0 is unrelated")
run.show(figure, "features", "Likeness of the features of all pairs of cells; actions are framed")

# %% features-see [markdown]
# **What to see.** Row *i*, column *j* says how alike the features of cells *i* and *j* are; the
# diagonal compares each cell with itself. White frames mark the true actions, which the encoder
# does not know. Where a frame is filled with yellow, the cells of an action resemble each other,
# and a detector can see where it begins and ends. Yellow away from the diagonal is a *repetition*:
# the two stomps resemble each other. But other frames look like their surroundings. What the frozen
# encoder does not show, no detector behind it can bring back. Section 6 draws this map again, with
# an encoder that has learned.

# %% detector-text [markdown] tags=["slide"]
# ## 4 · The detector
#
# The detector judges **proposals**: candidate [segments](glossary.md#segment) (start, end). With T
# cells we can simply list all of them, up to a longest duration. How well a proposal fits is
# measured by **temporal IoU ([tIoU](glossary.md#tIoU))**: the time that two segments share, divided
# by the time that they cover together. It is 1 for a perfect fit and 0 for no overlap.

# %% proposals
from etadlite.base.segments import tiou
from etadlite.detector import proposal_map

longest = settings.detector.max_duration
every, valid = proposal_map(cells, longest)  # [D, T, 2] start and end, [D, T]
proposals = every[valid]  # [P, 2]
print(f"P = {len(proposals):,} proposals of 1 to {longest} cells")
best = tiou(every[:, :, None], sample.actions).amax(dim=2)  # [D, T] with the nearest action
best[~valid] = torch.nan

# %% proposals-picture tags=["slide-more"]
figure = Figure(figsize=(12, 4), layout="constrained")
axis = figure.subplots()
extent = (0, cells, 0.5, longest + 0.5)
image = axis.imshow(best, origin="lower", aspect="auto", cmap="cividis", extent=extent)
axis.set(xlabel="start (cell)", ylabel="duration (cells)", title="Every point is a proposal")
figure.colorbar(image, label="tIoU with the nearest action")
run.show(figure, "proposals", "Map of all proposals; bright peaks lie where the true actions are")

# %% proposals-see [markdown]
# **What to see.** Each bright peak is an action: its place says when it starts and how long it
# lasts. The detector's task is to paint this map without knowing the truth. The empty corner holds
# segments that would end after the video.
#
# For this, the detector mixes the features over time, cuts out each proposal's part
# (*[RoIAlign](glossary.md#RoIAlign)*), and predicts the proposal's tIoU and how far its ends should
# move. Three **[stages](glossary.md#stage)** do so, each refining the last one's segments. Beside
# the stages, the detector predicts the class of each cell: one of K actions, or
# *[background](glossary.md#background)*. At the end, **[soft-NMS](glossary.md#soft-NMS)** deals
# with segments that overlap: it keeps the best one and lowers the scores of the others.

# %% detector
from etadlite.model.system import System

system = System(settings)  # encoder and detector; the detector is untrained
with torch.no_grad():
    output = system.detector(features, proposals[None])
print("is a start / an end here? [B, 2, T]:   ", list(output.boundaries.shape))
print("which class is here?      [B, K+1, T]: ", list(output.classes.shape))
for number, stage in enumerate(output.stages, 1):
    print(f"stage {number}: tIoU {list(stage.iou.shape)}, offsets {list(stage.offsets.shape)}")

# %% memory-text [markdown] tags=["slide"]
# ## 5 · The problem, and ETAD's answer
#
# To train the encoder, back-propagation needs the **activations**: intermediate results that each
# layer keeps until the gradient comes back. They take far more memory than the weights, and they
# grow with every snippet.
#
# **Predict first.** Write your guesses into the next cell; section 7 compares. Leave `None` where
# you prefer to wait.

# %% guess
guess = {
    "memory": None,  # a plain step keeps how many times the activations of a sequential one?
    "time": None,  # a step with 30 % of the snippets takes which share of one with all (0 to 1)?
    "gain": None,  # how many points of mAP does end to end (all) add to frozen features?
}

# %% one-text [markdown]
# First, one snippet. `SavedActivations` adds up the bytes that autograd keeps for the backward
# pass. The small experiments of this section run on the CPU, where such counts are exact.

# %% one
from etadlite.training.activations import SavedActivations

with SavedActivations(encoder) as saved:  # the encoder's weights do not count
    encoder(snippets[:1])
one = saved.peak_bytes
chunk_size = settings.encoder.chunk_size
for what, count in (
    ("one snippet keeps", one),
    (f"a chunk of {chunk_size} should keep", chunk_size * one),
    (f"all {cells} should keep", cells * one),
    ("the encoder's weights take", 4 * size),
):
    print(f"{what:<26} {count / 2**20:6.2f} MiB")

# %% passes-text [markdown] tags=["slide"]
# **Sequential encoding** splits a training step into three passes:
#
# 1. encode all snippets, a few at a time (a **chunk**), *without* keeping activations;
# 2. run the detector and its backward pass as usual, as far as the features: their gradient is now
#    known;
# 3. encode the snippets again, chunk by chunk, *with* activations, and push the stored [feature
#    gradient](glossary.md#feature-gradient) through each chunk.
#
# At any moment only one chunk's activations exist. In code:


# %% passes tags=["slide-more"]
def three_passes(encoder, frames, loss_of, chunk_size):
    with torch.no_grad():  # pass 1
        features = torch.cat([encoder(chunk) for chunk in frames.split(chunk_size)])
    features.requires_grad_()
    loss_of(features).backward()  # pass 2: fills features.grad
    gradients = features.grad.split(chunk_size)
    for chunk, gradient in zip(frames.split(chunk_size), gradients, strict=True):
        encoder(chunk).backward(gradient)  # pass 3: adds up in the encoder


# %% equal-text [markdown] tags=["slide"]
# Is that still the same gradient? By the chain rule it must be, as long as a snippet's feature does
# not depend on the other snippets in its chunk. We check in double precision, so that rounding
# can't hide a mistake. A small convolution over time plays the detector.

# %% equal tags=["slide-more"]
exact, head = copy.deepcopy(encoder).double(), torch.nn.Conv1d(features.shape[1], 1, 3).double()
few = snippets[:24]


def loss_of(features):  # [N, C]
    return head(features.T[None]).square().mean()


def gradient_after(step):
    exact.zero_grad()
    step()
    return torch.cat([parameter.grad.flatten() for parameter in exact.parameters()])


plain = gradient_after(lambda: loss_of(exact(few)).backward())
by_hand = gradient_after(lambda: three_passes(exact, few, loss_of, chunk_size=5))
print(f"largest gradient   {plain.abs().max():.3e}")
print(f"largest difference {(plain - by_hand).abs().max():.3e}")

# %% package-text [markdown]
# The two gradients are equal to the last digits. The package wraps the three passes into
# `SequentialEncoder`, an ordinary module: call it, and `backward()` does the rest. It must agree,
# too:

# %% package
from etadlite.model import SequentialEncoder


def with_the_package():
    sequential = SequentialEncoder(exact, chunk_size=7, ratio=1.0)
    loss_of(sequential(few[None])[0].T).backward()


difference = (plain - gradient_after(with_the_package)).abs().max() / plain.abs().max()
print(f"largest difference to plain back-propagation: {difference:.1e} of the largest gradient")

# %% grow-text [markdown]
# And the memory? We measure plain and sequential encoding for ever longer videos.


# %% grow
def peak_bytes(module, frames):
    with SavedActivations(encoder, snippets) as saved:  # weights and input are there anyway
        module(frames).sum().backward()
    encoder.zero_grad()
    return saved.peak_bytes


sequential = SequentialEncoder(encoder, chunk_size)
lengths = [cells // 4, cells // 2, 3 * cells // 4, cells]
plain_peaks = [peak_bytes(encoder, snippets[:n]) for n in lengths]
peaks = [peak_bytes(sequential, snippets[None, :n]) for n in lengths]
for n, whole, ours in zip(lengths, plain_peaks, peaks, strict=True):
    print(f"N = {n:3d}: plain {whole / 2**20:6.1f} MiB, sequential {ours / 2**20:6.1f} MiB")

# %% grow-picture tags=["slide"]
figure = Figure(figsize=(8, 4), layout="constrained")
axis = figure.subplots()
for name, colour, measured, predicted in (
    ("plain", COLOURS[3], plain_peaks, [n * one for n in lengths]),
    ("sequential", COLOURS[0], peaks, [chunk_size * one for _ in lengths]),
):
    axis.plot(lengths, np.divide(predicted, 2**20), "--", color=colour, label=f"{name}, predicted")
    axis.plot(lengths, np.divide(measured, 2**20), "o", color=colour, label=f"{name}, measured")
axis.set_ylim(bottom=0)
axis.set(xlabel="N, snippets in the video", ylabel="peak of activations (MiB)")
axis.grid(alpha=0.3)
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
run.show(figure, "memory", "Activation memory: plain grows with N, sequential stays level")

# %% grow-see [markdown] tags=["slide-more"]
# **What to see.** The plain line climbs with every snippet; the sequential one stays level at one
# chunk. We encode everything twice, and in return a longer video adds only its frames and its
# features to the memory.
#
# That price can be lowered. Neighbouring snippets look much the same, so ETAD sends the gradient of
# only a random **part of the snippets** (the *[ratio](glossary.md#ratio)*) into the encoder in pass
# 3. A training step, with everything in it:

# %% step
from etadlite.base.draws import Draws
from etadlite.training.loop import loader, make_optimizer
from etadlite.training.losses import detection_loss
from etadlite.training.targets import make_targets

optimizer = make_optimizer(system, settings.training)
batch = next(iter(loader(open_split(settings, training=True), settings, training=True)))
draws = Draws.fresh(len(batch.names))  # a stream of random numbers per video
picked = system.sample_proposals(draws, batch.actions)  # [B, P, 2]; a random part is enough
targets = make_targets(batch.actions, batch.labels, picked, cells, len(CLASSES))

features = system.encoder(batch.inputs)  # [B, C, N], in the memory of one chunk
features.retain_grad()  # only so that we can look at it below
loss = sum(detection_loss(system.detector(features, picked), targets, settings.losses).values())
loss.backward()  # passes 2 and 3
optimizer.step()
print("loss:", round(float(loss.detach()), 2), " features:", list(features.shape))

# %% dial-text [markdown] tags=["slide"]
# **One experiment on one dial.** How well does a sampled gradient point in the direction of the
# full one? The *[cosine](glossary.md#cosine)* of the angle between them says so: 1 is the same
# direction, 0 a right angle. Guess the value at ratio 0.3 before you run the cell.

# %% dial
probe = system.encoder.encoder
weights = list(probe.parameters())


def encoder_gradient(ratio):
    encoded = SequentialEncoder(probe, chunk_size, ratio=ratio)(batch.inputs[:1])
    pushed = torch.autograd.grad(encoded, weights, features.grad[:1])
    return torch.cat([part.flatten() for part in pushed])


full = encoder_gradient(1.0)
ratios, draws = [0.1, 0.3, 0.5, 0.7, 1.0], 4
cosines = [
    [float(torch.cosine_similarity(encoder_gradient(r), full, dim=0)) for _ in range(draws)]
    for r in ratios
]
for ratio, values in zip(ratios, cosines, strict=True):
    print(f"ratio {ratio:.1f}: cosine {np.mean(values):.2f} (smallest {min(values):.2f})")

# %% dial-picture tags=["slide-more"]
figure = Figure(figsize=(8, 3.6), layout="constrained")
axis = figure.subplots()
axis.plot(ratios, np.mean(cosines, axis=1), color=COLOURS[0], label="mean")
axis.plot(ratios, np.sqrt(ratios), "--", color=COLOURS[7], label="square root of the ratio")
axis.plot(np.repeat(ratios, draws), np.ravel(cosines), "o", color=COLOURS[1], label="single draws")
axis.set(xlabel="share of the snippets with a gradient", ylabel="cosine with the full gradient")
axis.grid(alpha=0.3)
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False, loc="lower right")
run.show(figure, "dial", "Cosine between sampled and full gradient over the share of snippets")

# %% dial-see [markdown]
# **What to see.** The sampled gradient is *noisy*: it points roughly where the full one does, a
# little differently in each draw. If all snippets pulled in unrelated directions, the cosine would
# be about the square root of the ratio (dashed). Above that line, snippets agree with each other;
# below it, they pull against each other. In the recorded run most of the means lie below it. But
# the noise has no preferred direction: averaged over many draws, the sampled gradient is the full
# one times the ratio. Whether noise costs accuracy, only training can tell.

# %% train-text [markdown]
# ## 6 · Three systems, trained and compared
#
# All three systems have the same videos, the same detector and the same number of epochs:
#
# - **feature-based**: the frozen encoder's features (of augmented training videos, too);
# - **end to end, 30 %**: the encoder learns from 30 % of the snippets, drawn anew in each step;
# - **end to end, all**: it learns from every snippet.

# %% train-one
from etadlite.runs.run import finished
from etadlite.runs.side_by_side import processes_for, reports_of

own = ["training.epochs=8", "training.test_every=2"] if run.profile == "laptop" else []
jobs = []
for name in SYSTEMS:
    folder = run.out / name.replace(" %", "_percent").replace(",", "").replace(" ", "_")
    jobs.append((demo_settings(name, run.data, run.seed, [*run.changes, *own]), folder, name))
kept = [name for chosen, folder, name in jobs if finished(chosen, folder)]
processes = processes_for(jobs)
print(f"kept from an earlier run: {', '.join(kept) or 'nothing'}")
print(f"trained at a time: {processes or 1}")

# %% train-both-text [markdown]
# A second thread makes the steps of a network as small as this one only a little faster. So the
# systems train side by side, each in a process of its own with one thread, as many at a time as the
# processor has cores. With one core, or on a GPU, one trains after the other.

# %% train
reports = dict(zip(SYSTEMS, reports_of(jobs, watch=run.watch), strict=True))

# %% table-text [markdown] tags=["slide"]
# **How to read the table.** A detection counts as right if its class is right and its tIoU with a
# true action reaches a [threshold](glossary.md#threshold), say 0.5. Walk down the detections of a
# class from the highest score to the lowest: **[precision](glossary.md#precision)** is the share
# that is right so far, **[recall](glossary.md#recall)** the share of true actions found so far.
# *[Average precision](glossary.md#average-precision)* sums up both in one number, and **mAP** is
# its mean over the classes. It is given at five thresholds and as their average: higher is better,
# 100 is perfect. The last columns are the peak of activations in a step (encoder *and* detector)
# and the seconds that a step takes.

# %% table tags=["slide-more"]
from etadlite.training.report import results_table as table

text = table({name: [report] for name, report in reports.items()})
(run.out / "table.txt").write_text(text + "\n", encoding="utf-8")
print(text)

# %% curves tags=["slide"]
from etadlite.training.recorder import read_metrics
from etadlite.viz import draw_curves

curves = draw_curves({name: read_metrics(report.folder) for name, report in reports.items()})
run.show(curves, "curves", "Left: training loss of the three systems. Right: mAP on test videos")

# %% curves-see [markdown] tags=["slide-more"]
# **What to see** (in the `laptop` profile). The frozen system's mAP hardly rises in the second half
# of the training, and it ends at 44 %. More training does not help *this* detector on *these*
# features. End to end, the features themselves improve: mAP rises longer and further, and furthest
# with the gradient of all snippets.

# %% learned-text [markdown] tags=["slide"]
# What did the encoder learn? Here is the map of section 3 once more, for the same test video. On
# the left is the frozen encoder, on the right the one that was trained end to end.

# %% learned tags=["slide-more"]
from etadlite.model.checkpoint import load_checkpoint

folder = reports["end to end, all snippets"].folder
learned = load_checkpoint(folder / "checkpoint.safetensors", settings).encoder.encoder.cpu()
after = encode_in_chunks(learned, snippets[None], settings.encoder.chunk_size)
figure = Figure(figsize=(12, 5.4), layout="constrained")
for axis, maps, title in zip(
    figure.subplots(1, 2), (features_before, after), ("frozen", "trained end to end"), strict=True
):
    image = draw_likeness(axis, maps[0], title)
figure.colorbar(image, ax=figure.axes, label="cosine")
run.show(figure, "learned", "Likeness of all pairs of cells, frozen and after end-to-end training")

# %% learned-see [markdown]
# **What to see** (in the `laptop` profile). On the right more frames are filled: the cells of an
# action resemble each other, and they differ from what surrounds them. The yellow away from the
# diagonal has become clearer, too: an action resembles the other actions of its class, and cells
# without an action resemble each other, because for the detector they are all background. The
# gradient of pass 3 has made these features.

# %% gain-text [markdown] tags=["slide"]
# ### How much is gained, and how much of it is due to our choices?
#
# One run is no proof, and a comparison is only as good as what it compares with. So we repeated it
# with three seeds, and with cells half as long, T = 128 instead of 64. And we tried a **cheap
# alternative**: train the encoder as an ordinary classifier on *labelled snippets* of the training
# videos, freeze it, and train the detector on its features. Average mAP in %, mean ± standard
# deviation (`make seeds` and `tests/benchmarks/headline.py`):
#
# | generated videos | T = 64 | T = 128 |
# |---|---|---|
# | frozen encoder | 47.0 ± 1.1 | 57.9 ± 1.0 |
# | trained on labelled snippets, then frozen | 77.1 ± 1.9 | 82.8 ± 0.6 |
# | end to end, 30 % of the snippets | 71.9 ± 2.3 | 82.9 ± 1.4 |
#
# Shorter cells alone bring the frozen system 10.9 points: a part of what its features seemed to
# lack was only lost by our coarse cells. End to end stays 25.0 points above it with the same cells.
#
# **The cheap alternative gains as much here**, with T = 64 even 5.2 points more. With T = 128 it
# takes as much processor time, too, but it needs no third pass, and its features can be used again.
# Both encoders have learned from the target videos, and that is what counts. So try the alternative
# first. End-to-end training that starts from its encoder reaches 78.1 ± 0.9 with T = 64, only 1.0
# points above it.

# %% knows-text [markdown] tags=["slide"]
# ### The gain depends on what the frozen encoder knows
#
# Two other sets of videos, with other encoders; average mAP in %:
#
# | other videos | frozen | end to end |
# |---|---|---|
# | short real clips, joined; encoder from photographs; five folds | 65.4 ± 9.5 | 87.6 ± 4.4 |
# | ActivityNet-1.3, encoder TSP (published) | 37.8 | 38.7 |
#
# Our studio encoder and the encoder from photographs have never seen an action in the target
# videos, and the gain is large. More epochs bring only a part of it: on the real clips, a detector
# that trains on frozen features for 125 epochs instead of 15 reaches 70.5 ± 9.6, and
# with 375 epochs, as many minutes as end to end takes, 69.8 ± 9.3.
# [TSP](glossary.md#TSP)'s encoder is the cheap alternative: it was trained on labelled snippets of
# ActivityNet before it was frozen, and there, too, only 0.9 points are left to gain.

# %% detections-text [markdown]
# Now look at the detections themselves, on the first test video. The number on a bar is its score,
# and a paler bar has a lower score.

# %% detections tags=["slide"]
import json

from etadlite.runs.pictures import draw_test_videos

predictions = {
    name: json.loads((report.folder / "predictions.json").read_text())
    for name, report in reports.items()
}
pictures = draw_test_videos(settings, predictions, run.out / "pictures")
run.show_file(pictures[0], "Detections of three systems below the true actions")

# %% slider-text [markdown]
# **What to see** (in the recorded run). The rows of the end-to-end systems are right more often: only
# they find the *spin* near the end, and only the system that learned from all snippets finds the
# *unwind* and the *spin* in the middle. But one video is an example, not a measurement. Here all
# three systems call the second *stomp* a *kick* and miss the first *jump*. Both end-to-end systems
# report the *throw* and the *jump* behind it as one long action, where the frozen system reports two,
# though it calls the first of them a *squat*. The table above counts all test videos.
#
# A detector never says "this is all": it gives a long list with scores. Which of them you act on is
# your **threshold**: a high threshold misses actions, and a low one raises false alarms. In
# JupyterLab the next cell shows a slider; without a running kernel it shows four of its positions.
# mAP judges the whole list, and so it judges all thresholds at once.

# %% slider tags=["slide"]
from etadlite.viz.widgets import slider

found = predictions["end to end, all snippets"]["results"][video.name]
highest = max(item["score"] for item in found)
frames = strip(video_file)


def above(share):
    kept = [item for item in found if item["score"] >= share * highest]
    rows = {"true": truth, "detected": kept}
    return draw_timeline(frames, video.duration, rows, top=10, labels=CLASSES)


shares = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
alt = "Timelines with the detections that remain at four score thresholds"
run.explore(slider(above, shares, "score, as a share of the best", alt), "threshold")

# %% predicted-text [markdown]
# ## 7 · Predicted against measured
#
# **Time.** Encoding a snippet without gradient costs 1. Encoding it again with gradient costs some
# *r*: forward and backward. A step with ratio *q* then costs 1 + *q r* for each snippet, plus the
# detector. We measure *r* on one chunk and take the detector's seconds from the feature-based run.

# %% replay-cost
import time


def seconds_of(work, times=15):
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work().item()  # .item() waits until a graphics card is done, too
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


def with_gradient():
    probe(chunk).sum().backward()
    return next(probe.parameters()).grad.sum()


probe = build_encoder(settings.encoder).to(run.device)
chunk = snippets[:chunk_size].to(run.device)
seconds = seconds_of(torch.no_grad()(lambda: probe(chunk).sum())), seconds_of(with_gradient)
r = seconds[1] / seconds[0]
print(f"without gradient {1000 * seconds[0]:.1f} ms, with gradient {1000 * seconds[1]:.1f} ms")
print(f"r = {r:.2f}")

# %% time-share
frozen, part, whole = (report.seconds_per_step for report in reports.values())
encoding = whole - frozen  # what all snippets cost, twice encoded
expected_step = frozen + encoding * (1 + 0.3 * r) / (1 + r)
time_predicted, time_measured = expected_step / whole, part / whole
print(f"30 % against all: predicted {time_predicted:.2f}, measured {time_measured:.2f} of the time")

# %% plain-text [markdown]
# **Memory.** A plain step keeps the activations of the detector and of every snippet in the batch.
# A sequential step keeps the activations of the detector *or* those of one chunk, whichever are
# larger: when pass 3 begins, those of the detector are gone.

# %% memory-share
with SavedActivations(system, batch.inputs) as saved:
    encoded = system.encoder.encoder(batch.inputs.flatten(0, 1))  # all snippets at once
    encoded = encoded.unflatten(0, batch.inputs.shape[:2]).transpose(1, 2)
    output = system.detector(encoded, picked)
    sum(detection_loss(output, targets, settings.losses).values()).backward()
plain_measured = saved.peak_bytes
detector_alone, _, sequential_measured = (
    report.peak_activation_bytes for report in reports.values()
)
plain_predicted = detector_alone + encoded.shape[0] * cells * one
sequential_predicted = max(detector_alone, chunk_size * one)
for name, guessed, real in (
    ("plain step", plain_predicted, plain_measured),
    ("sequential step", sequential_predicted, sequential_measured),
):
    line = f"predicted {guessed / 2**20:6.1f} MiB, measured {real / 2**20:6.1f} MiB"
    print(f"{name:>15}: {line}, ratio {real / guessed:.2f}")

# %% compare
averages = [100 * report.average for report in reports.values()]
rows = {  # predicted, measured
    "memory": (plain_predicted / sequential_predicted, plain_measured / sequential_measured),
    "time": (time_predicted, time_measured),
    "gain": (None, averages[2] - averages[0]),
}
print(f"{'':8}{'your guess':>12}{'predicted':>12}{'measured':>12}")
for name, values in rows.items():
    shown = ["-" if v is None else f"{v:.2f}" for v in (guess[name], *values)]
    print(f"{name:8}" + "".join(f"{text:>12}" for text in shown))

# %% compare-see [markdown]
# **What to see.** Memory follows the formula almost exactly, because counting bytes is arithmetic.
# Time follows it roughly, because a computer does other things as well. For the gain there is no
# formula: that is why one trains.
#
# The encoder here is tiny. At the paper's size, with R(2+1)D-34 and four videos of 128 snippets, a
# plan of the memory (notebooks 02 and 05) says that the detector takes 151 MiB in pass 2 and a
# chunk of four snippets takes 331 MiB in pass 3. All 512 snippets in one chunk would bring the step
# to 32 GiB.

# %% assignment-setup tags=["assignment"]
import torch

from etadlite.course import check

# %% exercises [markdown]
# ## 8 · Exercises
#
# Replace the `...` by your code. The checker says whether it is right, and what is wrong if it is
# not. An answer follows from the arguments alone, and it leaves them as they are. Nothing breaks if
# you leave an exercise out.

# %% exercise-1-text [markdown]
# ### 1 · Temporal IoU (easy, 5 minutes)
#
# `a` and `b` are segments: pairs (start, end) in seconds. Return one number from 0 to 1: the time
# that they share, divided by the time that they cover together.
#
# <details><summary>Hint</summary>
#
# The shared part starts at the later start and ends at the earlier end. The union is the sum of
# both lengths minus what they share.
#
# </details>


# %% exercise-1
def my_tiou(a, b):
    # BEGIN SOLUTION
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0] + b[1] - b[0] - shared)
    # END SOLUTION


check("tiou", my_tiou)

# %% exercise-2-text [markdown]
# ### 2 · What a step costs (medium, 5 minutes)
#
# Return what encoding costs in a training step at `ratio` (from 0 to 1), as a share of its cost at
# ratio 1: one number.
# `replay` is the *r* of section 7. What is the least that you can reach?
#
# <details><summary>Hint</summary>
#
# Pass 1 always encodes everything. Divide the cost at `ratio` by the cost at 1.
#
# </details>


# %% exercise-2
def step_cost(ratio, replay):
    # BEGIN SOLUTION
    return (1 + ratio * replay) / (1 + replay)
    # END SOLUTION


check("step_cost", step_cost)

# %% solution-2-note [markdown] tags=["solution"]
# The least is 1 / (1 + replay): pass 1 remains even if no snippet is replayed.

# %% exercise-3-text [markdown]
# ### 3 · A sampler of your own (harder, 15 minutes)
#
# A sampler is a function `(context, count) -> indices [B, count]`: whole numbers, ascending. `context.snippets` is
# N, and `len(context.draws)` is B. Pick snippets spread *evenly* over the video from its beginning
# to its end, the same in every video. No gap is longer than N / count, rounded up, and none is
# shorter than N / count, rounded down.
#
# <details><summary>Hint</summary>
#
# Cut 0..N into `count` equal pieces and take the middle of each, rounded down: (i + ½) · N / count.
# `expand` repeats a row for B videos.
#
# </details>


# %% exercise-3
def evenly(context, count):
    # BEGIN SOLUTION
    middles = ((torch.arange(count) + 0.5) * context.snippets / count).long()
    return middles.expand(len(context.draws), count)
    # END SOLUTION


from etadlite.sampling.snippets import SnippetStrategy

if check("evenly", evenly):
    sampler = SnippetStrategy(evenly)
    SequentialEncoder(encoder, chunk_size, sampler, ratio=0.3)(snippets[None]).sum().backward()
    print("and it trains an encoder")

# %% solution-3-note [markdown] tags=["solution"]
# Is it a good strategy? It never trains on the snippets in between. A better strategy draws a
# random shift in each step.

# %% full-run [markdown]
# ## 9 · The full run
#
# `make demo` executes this notebook. The same by hand, and then with the large data set, best on a
# graphics card:
#
# ```
# etadlite notebook 00_quickstart -p profile laptop
# etadlite notebook 00_quickstart -p profile full --out runs/large
# ```
#
# The three systems over three seeds, as a table of mean ± standard deviation:
#
# ```
# etadlite demo --seeds 3 --out runs/seeds
# ```
#
# The card at the top shows what one recorded run reached; another seed or machine may differ by a
# few points. The README has the mean and the standard deviation over three seeds: 47.0 ± 1.1, 71.9
# ± 2.3 and 75.7 ± 1.4 % average mAP. Videos, features and finished systems that exist in
# `data_root` and `out_dir` are kept, so that a stopped run continues with the system at which it
# stopped. To train everything again, choose another `out_dir`.

# %% metrics
from etadlite.training.report import report_record

run.finish(
    {f"{name}, mAP (%)": round(value) for name, value in zip(reports, averages, strict=True)},
    kept=kept,
    processes=processes,
    systems={name: report_record(report) for name, report in reports.items()},
    gradient_difference=float(difference),
    activation_bytes={"lengths": lengths, "plain": plain_peaks, "sequential": peaks},
    cosine={str(q): float(np.mean(values)) for q, values in zip(ratios, cosines, strict=True)},
    replay_cost=r,
    compare={name: {"predicted": p, "measured": m} for name, (p, m) in rows.items()},
)
print("written to out_dir: metrics.json, table.txt, pictures, and a folder for each system")

# %% summary [markdown] tags=["slide"]
# ## Summary
#
# - A temporal action detector turns a long video into segments with labels and scores.
# - Frozen features limit what it can learn, above all where the encoder's world differs from the
#   video's.
# - Sequential encoding gives the *same* gradient as back-propagation in the memory of one chunk.
# - The gradient of a random part of the snippets is noisier. On average it has the direction of the
#   full gradient, and it takes less time.
# - An encoder that learned from labelled snippets, and was then frozen, is a strong rival.

# %% limits [markdown] tags=["slide-more"]
# ## Limits
#
# Stick figures are not people, and one seed is one random draw: differences of a few points
# mean little. We made the gap between studio and video ourselves, and it is wide. How much
# end-to-end training gains on real videos depends on the real gap: for ActivityNet-1.3, 37.8 % on
# frozen features and 38.7 % end to end are published, a gain of 0.9 points.

# %% references [markdown]
# ## References
#
# - S. Liu et al., *ETAD: Training Action Detection End to End on a Laptop*, CVPR Workshops 2023,
#   [arXiv:2205.07134](https://arxiv.org/abs/2205.07134): the method.
# - D. Tran et al., *A Closer Look at Spatiotemporal Convolutions for Action Recognition*, CVPR
#   2018: R(2+1)D.
# - H. Alwassel et al., *TSP: Temporally-Sensitive Pretraining of Video Encoders*, ICCV Workshops
#   2021: encoders for detection.
# - N. Bodla et al., *Soft-NMS*, ICCV 2017.
# - F. Caba Heilbron et al., *ActivityNet*, CVPR 2015: the task, the file structure, mAP over tIoU.

# %% questions-text [markdown]
# ## Questions
#
# Five questions have choices, and each choice is explained. Three questions are to be answered in
# words; write your answer before you unfold what counts. In JupyterLab, run the cell and press the
# buttons.

# %% questions tags=["alone"]
from etadlite.course.quiz import show_quiz

show_quiz("00_quickstart")
