# %% card [markdown] tags=["slide"]
# # 1 · Finding actions in a sequence of features
#
# **The question.** Somebody has turned a long video into a sequence of vectors. How does a
# *temporal action [detector](glossary.md#detector)* find in it what happens, from when to when? And
# how do we judge what it says?
#
# **You will** take the detector of **ETAD** apart: list every possible
# [segment](glossary.md#segment), cut each one out with *[RoIAlign](glossary.md#RoIAlign)*, give it
# a score, lower the scores of duplicates with *[soft-NMS](glossary.md#soft-NMS)*, and judge the
# result by *[mAP](glossary.md#mAP)*. Each idea is first written in a few lines of PyTorch, and then
# compared with the package: both must give the same numbers. Three of them you write yourself: the
# matching, RoIAlign's weights, and a loss.
#
# **You need** PyTorch (`nn.Module`, broadcasting) and no knowledge of video. `00_quickstart` shows
# the whole system from above.
#
# **What it takes**, from recorded runs:
#
# <!-- card -->
#
# **Shapes**: **B** videos, **N** snippets, **F** frames, **C** channels, **T** cells of time, **P**
# proposals. Each is explained where it first appears.

# %% parameters-text [markdown]
# ### Parameters
#
# Run the notebook as it is, or change a value here first. `smoke` only proves that everything runs;
# its numbers mean nothing. Paths are relative to `notebooks/`.

# %% parameters tags=["parameters"]
# Parameters of this notebook; papermill can replace each of them.
profile = "laptop"  # smoke, laptop or full
data_root = "../data"  # where the generated videos are kept
out_dir = "../runs/01_feature_based_tad"  # pictures, metrics, weights
seed = 0  # governs weights, sampling and order
device = "auto"  # auto, cpu, cuda or mps
interactive = "auto"  # bars and sliders: true, false or auto

# %% setup
import json
import time

import numpy as np
import torch
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

# %% data-text [markdown] tags=["slide"]
# ## 1 · The task: which action, from when to when
#
# A training step of ETAD has three passes. This notebook builds what is bright in the picture: the
# detector, which reads [features](glossary.md#feature) and judges
# [proposals](glossary.md#proposal). The other parts follow in 02, 03 and 04.

# %% method tags=["slide-more"]
from etadlite.viz.method import draw_method

alt = "A training step of ETAD in three passes; bright: the detector, its features and proposals"
run.show(draw_method("detector"), "method", alt)

# %% own-text [markdown]
# **Your own detector.** In this course you write the central functions yourself. If an answer
# passes its checker, the notebook saves your function as plain text in `my_etad.py`, beside this
# notebook, and the cells below use it from then on. If you skip an exercise, they use the package's
# function; a printed line says which of the two it is. At the end of 04 your functions are put
# together into a detector and trained. A function in that file must stand alone: it may use
# `torch`, `nn`, `F`, `np`, `math` and `tiou`, and whatever it defines or imports itself.

# %% task-text [markdown]
# **The task.** Our videos show a stick figure that sometimes acts and mostly idles. Such a video is
# **[untrimmed](glossary.md#untrimmed)**: nobody has cut it to the interesting part. Its
# **[annotation](glossary.md#annotation)** is a list of **segments**, each a start and an end in
# seconds with a **[label](glossary.md#label)**, the class of the [action](glossary.md#action). The
# file has the structure of *ActivityNet*, a benchmark of 20,000 real videos.

# %% data
from etadlite.data.annotations import read_annotations
from etadlite.stickfigures.classes import CLASSES
from etadlite.stickfigures.dataset import make_dataset

print("making the videos; those that exist are kept")
annotations = make_dataset(run.data, run.size, progress=run.interactive)
tests = read_annotations(annotations, "validation")
video = min(tests.values(), key=lambda one: one.duration)  # the shortest is the easiest to read
entry = json.loads(annotations.read_text())["database"][video.name]
print(f"{video.name} in the annotation file:")
print(json.dumps(entry)[:330], "...")

# %% timeline tags=["slide-more"]
from etadlite.runs.pictures import strip
from etadlite.viz import draw_timeline

frames = strip(run.data / "videos" / f"{video.name}.mp4")
truth = [{"segment": [a.start, a.end], "label": a.label} for a in video.actions]
figure = draw_timeline(frames, video.duration, {"true": truth}, title=video.name, labels=CLASSES)
run.show(figure, "ground_truth", f"Frames of {video.name} above bars for its true actions")

# %% timeline-see [markdown] tags=["slide-more"]
# **What to see.** A few actions, and idling between them.

# %% features-text [markdown] tags=["slide"]
# ## 2 · Features: one vector per cell
#
# The video is cut into T equal pieces of time, the **[cells](glossary.md#cell)**. From the middle
# of each, a few consecutive frames, a **[snippet](glossary.md#snippet)**, go through a video
# network, the **[encoder](glossary.md#encoder)**, which gives C numbers: the cell's **feature**.
# Here the encoder is *[frozen](glossary.md#frozen)*: it learnt from [studio](glossary.md#studio)
# clips and never changes again, so we run it once and keep its output in files. From now on the
# detector sees only a matrix [C, T], and time is measured in cells, from 0 to T. Only the **[time
# grid](glossary.md#time-grid)** converts between cells and seconds; here this is one
# multiplication. Cell t covers the time from position t to position t + 1, so a snippet lies at
# position t + ½. Section 4 needs this.

# %% features
from etadlite.encoders.build import build_encoder
from etadlite.prepare.extract import extract_features
from etadlite.runs.demo import demo_settings
from etadlite.training.loop import open_split

epochs = {"smoke": 20, "laptop": 15, "full": 12}[run.profile]
own = [f"training.epochs={epochs}", "training.test_every=0"]
settings = demo_settings("feature-based", run.data, run.seed, [*run.changes, *own])
encoder = build_encoder(settings.encoder).to(run.device)
print("encoding all videos once; features that exist are kept")
extract_features(settings, encoder, settings.data.features, progress=run.interactive)
test_data = open_split(settings, training=False)
sample = test_data[list(tests).index(video.name)]
features, actions = sample.inputs, sample.actions
C, T = features.shape
print("features [C, T]:", [C, T], "  actions [A, 2] in cells:", list(actions.shape))

# %% grid
seconds = torch.tensor([[action.start, action.end] for action in video.actions])
by_hand = seconds / video.duration * T
assert torch.allclose(by_hand, sample.grid.to_cells(seconds), atol=1e-4)
assert torch.allclose(by_hand, actions, atol=1e-4)
print(f"a cell of this video lasts {sample.grid.seconds_per_cell:.2f} s")
for action, (first, last) in zip(video.actions, actions.tolist(), strict=True):
    inside = f"cells {first:4.1f} to {last:4.1f}"
    print(f"{action.start:5.1f} to {action.end:5.1f} s = {inside}  {action.label}")

# %% features-picture tags=["slide-more"]
figure = Figure(figsize=(12, 3), layout="constrained")
axis = figure.subplots()
image = axis.imshow(features, aspect="auto", cmap="cividis", vmin=-3, vmax=3, extent=(0, T, C, 0))
for (first, last), label in zip(actions.tolist(), sample.labels, strict=True):
    axis.plot([first, last], [-2, -2], color=COLOURS[3], linewidth=5, clip_on=False)
    axis.text(first, -4, CLASSES[label])
axis.set(xlabel="time (cells)", ylabel="channel", ylim=(C, -1))
axis.spines[:].set_visible(False)
figure.colorbar(image, label="standardised value")
run.show(figure, "features", "Features of one video over time, with its actions marked above")

# %% features-see [markdown] tags=["slide-more"]
# **What to see.** Each column is one cell. Below the marked actions the pattern changes, more
# clearly for some than for others. This is all that the detector sees.

# %% guess-text [markdown]
# **Predict first.** Write your guesses here; section 9 compares. *mAP* (section 8) runs from 0 to
# 100 %, where 100 is perfect. Leave `None` where you prefer to wait.

# %% guess
guess = {
    "constant": None,  # mAP (%) of a "detector" that says the same of every video
    "detector": None,  # mAP (%) of the detector that we are about to train
    "ceiling": None,  # mAP (%) of perfect choices among segments that begin and end on cell borders
    "faster": None,  # RoIAlign and a linear layer: how many times faster if the layer goes first?
}

# %% proposals-text [markdown] tags=["slide"]
# ## 3 · Proposals: every segment there could be
#
# A **proposal** is a candidate segment. Detectors for images need clever ways of proposing; in time
# there are so few that we list them all: each start, each duration up to the longest.

# %% proposals
from etadlite.detector import proposal_map, valid_proposals

D = settings.detector.max_duration
by_hand = [[start, start + d] for d in range(1, D + 1) for start in range(T - d + 1)]
proposals = torch.tensor(by_hand).float()  # [P, 2] in cells
P = len(proposals)
every, valid = proposal_map(T, D)  # [D, T, 2] by duration and start, and [D, T]: does it fit?
assert proposals.equal(every[valid])
assert proposals.equal(valid_proposals(T, D))
print(f"P = {P:,} proposals of 1 to {D} cells; the map has {every.shape[:2].numel():,} places")

# %% tiou-text [markdown]
# How well does a proposal fit an action? **Temporal intersection over union
# ([tIoU](glossary.md#tIoU))** says so: the time that both share, divided by the time that they
# cover together. It is 1 for a perfect fit and 0 without overlap.
#
# The next cell computes the tIoU of tensors of segments. It contains the answer to exercise 1 of
# `00_quickstart`, so solve that exercise first.


# %% tiou
from etadlite.base.segments import tiou


def my_tiou(a, b):  # segments [..., 2]
    first = torch.maximum(a[..., 0], b[..., 0])
    last = torch.minimum(a[..., 1], b[..., 1])
    shared = (last - first).clamp(min=0)
    return shared / (a[..., 1] - a[..., 0] + b[..., 1] - b[..., 0] - shared)


fit = my_tiou(proposals[:, None], actions)  # [P, A]: every proposal with every action
assert torch.allclose(fit, tiou(proposals[:, None], actions))
print("tIoU [P, A]:", list(fit.shape))

# %% assignment-setup tags=["assignment"]
import torch

from etadlite.base.segments import tiou
from etadlite.course import check

# %% matching-text [markdown]
# **Matching.** A proposal learns from one action, the one that fits it best. Its
# **[target](glossary.md#target)**, the value that the detector should give to it, is its tIoU with
# this action.

# %% exercise-1-text [markdown]
# ### Exercise 1 · The action of each proposal (easy, 10 minutes)
#
# `actions` is [A, 2] and `proposals` is [P, 2]. Return, for each proposal, start and end of the
# action with which it has the highest tIoU: [P, 2]. Where two actions fit equally well, either
# will do; a proposal that touches no action may get any of them, or zeros. A video may have no
# action (A = 0); then return zeros. Use `tiou`, the package's version of `my_tiou`.
#
# Replace the `...` by your code and run the cell. The checker says whether it is right, and what is
# wrong if it is not. Nothing breaks if you leave an exercise out.
#
# <details><summary>Hint</summary>
#
# `tiou(proposals[:, None], actions)` is [P, A]. In which direction does `argmax` have to go?
#
# </details>


# %% exercise-1
def matched_actions(actions, proposals):
    # BEGIN SOLUTION
    if not len(actions):
        return torch.zeros_like(proposals)
    return actions[tiou(proposals[:, None], actions).argmax(dim=1)]
    # END SOLUTION


check("matched_actions", matched_actions)
matched_actions = run.mine("matched_actions", matched_actions)

# %% targets
from etadlite.training.losses import stage_targets
from etadlite.training.targets import make_targets

targets = make_targets([actions], [sample.labels], proposals[None], T, len(CLASSES))
matched = matched_actions(actions, proposals)  # [P, 2]
assert torch.allclose(tiou(matched, proposals), tiou(targets.matched[0], proposals))
targets = targets._replace(matched=matched[None])  # from here on, by the function above
wanted = stage_targets(proposals[None], targets)
assert torch.allclose(wanted.iou[0], fit.amax(dim=1))
print("matched actions [P, 2]:", list(matched.shape), "  target [P]:", list(wanted.iou[0].shape))


# %% map-picture tags=["slide-more"]
def on_the_map(values):  # [P] -> [D, T]
    painted = torch.full(valid.shape, torch.nan)
    painted[valid] = values
    return painted


def draw_map(figure, axis, values, title, label="tIoU"):
    extent = (0, T, 0.5, D + 0.5)
    image = axis.imshow(
        on_the_map(values), origin="lower", aspect="auto", cmap="cividis", extent=extent
    )
    axis.set(xlabel="start (cells)", ylabel="duration (cells)", title=title)
    axis.label_outer()  # of two maps, only the lower names their common axis
    figure.colorbar(image, ax=axis, label=label)


figure = Figure(figsize=(12, 3.6), layout="constrained")
axis = figure.subplots()
draw_map(figure, axis, wanted.iou[0], "Target: tIoU with the nearest action")
for number, (first, last) in enumerate(actions.tolist()):
    axis.plot(first, last - first, "o", color=COLOURS[3], label=None if number else "true action")
axis.legend(loc="upper right")
run.show(figure, "map", "Map of all proposals; bright peaks lie where the true actions are")

# %% map-see [markdown]
# **What to see.** Every point is a proposal: its column says when it starts, its row how long it
# lasts. Each true action is the summit of a hill; the hills of short actions are narrow. White are
# proposals that would end after the video. The detector's task is to paint this map from the
# features.

# %% detector-text [markdown] tags=["slide"]
# ## 4 · Inside the detector
#
# **[Temporal enhancement](glossary.md#temporal-enhancement).** A feature knows half a second of
# video. Whether an action is under way shows only in context, so the detector first mixes the
# features along time: with convolutions, and with two LSTMs, one from each end. Which input cells
# can reach the cell in the middle? The gradient of the middle cell shows this.

# %% enhance
from etadlite.model.system import System

torch.manual_seed(run.seed)
detector = System(settings).detector  # untrained
x = features[None].clone().requires_grad_()  # [B, C, T]
for name, part in (("a convolution", detector.enhance.project[0]), ("all", detector.enhance)):
    middle = part(x)[0, :, T // 2].sum()
    reached = torch.autograd.grad(middle, x)[0].abs().sum(dim=(0, 1)) > 0
    print(f"{name}: the middle cell sees {int(reached.sum())} of {T} cells")
print("enhanced [B, width, T]:", list(detector.enhance(x).shape))

# %% roi-text [markdown] tags=["slide"]
# **RoIAlign.** Proposals have many lengths, but a linear layer wants one. RoIAlign (*RoI*: region
# of interest) cuts each proposal into R equal **[bins](glossary.md#bin)** and reads the feature at
# evenly spaced places in each bin. A place between two cells takes a part of each: cell t weighs
# max(0, 1 - |place - t|), a little *hat* over the place. The mean over the places of a bin is then
# a weighted sum of cells: a row of a matrix. The matrices of all proposals are weights [P, R, T].

# %% conventions-text [markdown] tags=["slide-more"]
# **Two conventions meet here.** By section 2 the snippet of cell t lies at position t + ½, but this
# hat has its top at position t. So RoIAlign reads everything half a cell late. The released ETAD
# code does this, and so do its published weights (`aligned=False`). It costs little, because the
# shift is the same for all proposals, so the layers behind it can learn it. The toolbox OpenTAD
# subtracts the half cell first (`aligned=True`). The package has both, as
# `detector.layout=released` and `opentad`. What matters is that training and test use the same one.

# %% longer-text [markdown] tags=["slide-more"]
# Before it is cut out, a proposal is lengthened by half of its length on both sides, so that the
# detector sees what lies just before and after it.

# %% exercise-2-text [markdown]
# ### Exercise 2 · The weights of RoIAlign (harder, 25 minutes)
#
# `segments` is [P, 2], start and end in cells, already lengthened. Return the weights [P, bins,
# cells]:
#
# - A segment shorter than one cell is read as if it were one cell long. Divide this length by the
#   number of bins: it is the width of a bin.
# - A bin has as many places as its width in cells, rounded up. They are the middles of equal parts
#   of the bin: a bin from 4 to 7 has three parts, and its places are 4.5, 5.5 and 6.5.
# - A place before -1 or after `cells` counts 0. Any other place is moved to 0 or to `cells` - 1 if
#   it lies beyond them.
# - Cell t weighs max(0, 1 - |place - t|), and the weights of a bin are the mean over its places.
#
# A loop over the segments is right. Without a loop it is faster, and 04 calls it in every training
# step.
#
# <details><summary>Hint</summary>
#
# For one segment: `start + (torch.arange(bins)[:, None] + offsets) * width` are the places [bins,
# places], with `offsets = (torch.arange(count) + 0.5) / count`. `places[..., None] -
# torch.arange(cells)` compares each with every cell. Without a loop, give all segments as many
# places as the longest one needs, and multiply those beyond `count` by 0.
#
# </details>


# %% exercise-2
def roi_weights(segments, bins, cells):
    # BEGIN SOLUTION
    start, end = segments[:, 0], segments[:, 1]
    width = (end - start).clamp(min=1) / bins  # [P] of a bin, in cells
    count = width.ceil()  # [P] places a bin
    number = torch.arange(int(count.max()))  # [S] as many as the longest segment needs
    offset = (number + 0.5) / count[:, None]  # [P, S] in widths of a bin
    place = torch.arange(bins)[:, None] + offset[:, None]  # [P, bins, S]
    place = start[:, None, None] + place * width[:, None, None]
    counts = (number < count[:, None])[:, None] & (place >= -1) & (place <= cells)
    place = place.clamp(0, cells - 1)[..., None]
    hat = (1 - (place - torch.arange(cells)).abs()).clamp(min=0)  # [P, bins, S, cells]
    return (hat * counts[..., None]).sum(dim=2) / count[:, None, None]
    # END SOLUTION


check("roi_weights", roi_weights)
roi_weights = run.mine("roi_weights", roi_weights)

# %% roi-text-equal [markdown]
# A RoI is the product of these weights and the features. We compare it with the package's, and
# with torchvision's compiled RoIAlign for boxes in images.

# %% roi-equal
from torchvision.ops import roi_align as roi_align_of_boxes

from etadlite.detector.roi import RoIs, extend, roi_align

R = settings.detector.roi_size
longer = extend(proposals)  # [P, 2]
weights = roi_weights(longer, R, T)  # [P, R, T]
rois = (weights @ features.T).transpose(1, 2)  # [P, C, R]


def with_torchvision(x, segments, bins):  # [C, T] as an image of width 1, segments as boxes
    zero, one = torch.zeros(len(segments)), torch.ones(len(segments))
    boxes = torch.stack((zero, zero, segments[:, 0], one, segments[:, 1]), dim=1)
    return roi_align_of_boxes(x[None, :, :, None], boxes, (bins, 1), aligned=False)[..., 0]


package = roi_align(features[None], longer[None], R, aligned=False)[0]
assert torch.allclose(rois, package, atol=1e-3)
assert torch.allclose(rois, with_torchvision(features, longer, R), atol=1e-3)
print(
    "RoIs [P, C, R]:", list(rois.shape), f"  {(weights != 0).float().mean():.1%} of weights not 0"
)

# %% roi-picture tags=["slide-more"]
figure = Figure(figsize=(12, 5), layout="constrained")
order = (actions[:, 1] - actions[:, 0]).argsort()
for row, action in zip(figure.subplots(2, 2, width_ratios=(3, 1)), order[[0, -1]], strict=True):
    segment = actions[action]
    matrix = roi_weights(extend(segment)[None], R, T)[0]
    row[0].imshow(matrix, aspect="auto", cmap="cividis", extent=(0, T, R, 0))
    for border in segment.tolist():
        row[0].axvline(border, color=COLOURS[1], linestyle="--")
    name = CLASSES[sample.labels[action]]
    row[0].set(
        ylabel="bin", title=f"weights for a true action: {name}, {segment.diff().item():.1f} cells"
    )
    row[1].imshow((matrix @ features.T).T, aspect="auto", cmap="cividis", vmin=-3, vmax=3)
    row[1].set(ylabel="channel", title="its RoI")
row[0].set_xlabel("time (cells)")
row[1].set_xlabel("bin")
run.show(figure, "roi", "RoIAlign's weights of a short and of a long action, and their RoIs")

# %% roi-see [markdown]
# **What to see.** Each row of the matrix lights up the few cells that its bin is made of; between
# the dashed lines is the action itself. On the right both are R bins wide, whatever their length:
# so one layer can read both.

# %% linear-text [markdown] tags=["slide"]
# **A speed-up: apply the linear layer before RoIAlign.** Next in the detector comes a linear layer
# on the flattened RoI. Bin r of proposal p is the sum of w[p, r, t] · x[t] over the cells; the
# layer multiplies it by that bin's weights W[r] and sums over the bins. Both are sums, so they may
# be taken in any order:
#
# Σᵣ W[r] (Σₜ w[p, r, t] x[t]) = Σᵣ Σₜ w[p, r, t] (W[r] x[t])
#
# On the right the layer is applied to T cells instead of P · R bins. So we make a small **table**
# of W[r] x[t] once, and each proposal adds up a few of its rows. The RoIs themselves are never
# computed.

# %% linear tags=["slide-more"]
H = settings.detector.hidden
layer = torch.nn.Linear(C * R, H)
usual = layer(rois.flatten(1))  # [P, H]

table = torch.einsum("ct,hcr->trh", features, layer.weight.view(H, C, R))  # W[r] x[t]: [T, R, H]
summed = torch.einsum("prt,trh->ph", weights, table) + layer.bias
assert torch.allclose(summed, usual, atol=1e-3)
package = RoIs(features[None], longer[None], R, aligned=False).linear(layer)[0]
assert torch.allclose(package, usual, atol=1e-3)
print(f"largest difference {(package - usual).abs().max().item():.0e}, from rounding")
print(f"numbers in the RoIs: {rois.numel():,}; in the table: {table.numel():,}")

# %% time-text [markdown]
# **Predict, then measure.** Count the multiplications. In the usual order, RoIAlign reads 4
# neighbours (as in an image) for each of S places per bin, summed over all proposals, and the layer
# then takes P · R · C · H multiplications. With the layer first, the table takes T · R · C · H, and
# each place then adds up 2 rows of the table. We time both on the CPU, for this detector and for a
# detector of the paper's size.


# %% time
def multiplications(cells, spans, bins, channels, hidden):
    places = ((spans[:, 1] - spans[:, 0]).clamp(min=1) / bins).ceil().sum().item()
    usual = places * bins * 4 * channels + len(spans) * bins * channels * hidden
    return usual, cells * bins * channels * hidden + places * bins * 2 * hidden


@torch.no_grad()
def race(shape, times):
    cells, longest, bins, channels, hidden = shape
    x, spans = torch.randn(channels, cells), extend(valid_proposals(cells, longest))
    layer = torch.nn.Linear(channels * bins, hidden)
    seconds = {"usual": [], "first": []}
    for _ in range(times + 1):  # in turn; the first is a warm-up
        begun = time.perf_counter()
        a = layer(with_torchvision(x, spans, bins).flatten(1))
        middle = time.perf_counter()
        b = RoIs(x[None], spans[None], bins, aligned=False).linear(layer)[0]
        seconds["usual"].append(middle - begun)
        seconds["first"].append(time.perf_counter() - middle)
    assert torch.allclose(a, b, atol=1e-3)
    return [float(np.median(values[1:])) for values in seconds.values()]


# %% time-run
width = settings.detector.width // 2  # channels that reach RoIAlign: half of the width
races = {}
for name, shape, times in (
    ("this detector", (T, D, R, width, H), 15),
    ("the paper's size", (128, 128, 24, 128, 512), 3),
):
    counts = multiplications(shape[0], extend(valid_proposals(*shape[:2])), *shape[2:])
    took = race(shape, times)
    races[name] = counts[0] / counts[1], took[0] / took[1]
    print(f"{name}: {counts[0] / 1e6:,.0f} against {counts[1] / 1e6:,.0f} million multiplications")
    print(f"  predicted {races[name][0]:.1f} times faster, measured {races[name][1]:.1f} times")

# %% time-see [markdown]
# **What to see.** It is faster, but less so than the count says. Multiplying matrices runs near a
# processor's peak, while fetching rows of a table waits for memory.

# %% stages-text [markdown] tags=["slide"]
# **Refinement [stages](glossary.md#stage).** From this layer on, small heads predict three things
# about a proposal. The first is its tIoU, and they predict it twice: output 0 is the probability
# that the tIoU is *above 0.9*, and output 1 is the tIoU as a number. The second is whether its two
# ends are real boundaries. The third are four **[offsets](glossary.md#offsets)**: how far to move
# its start, end and centre, in units of its length, and the logarithm of the factor by which to
# change its width. Three stages do this in turn, each on the refined proposals of the stage before.
# Where offsets are exactly the targets, *any* proposal lands on its action:

# %% stages
from etadlite.detector import refine

refined = refine(proposals, wanted.offsets[0])  # [P, 2]
assert torch.allclose(refined, targets.matched[0], atol=1e-2)
index = int((my_tiou(proposals, actions[0]) - 0.6).abs().argmin())
numbers = ", ".join(f"{value:+.2f}" for value in wanted.offsets[0, index])
print("proposal:", proposals[index].tolist(), f" offsets: {numbers}")
print("refined: ", [round(value, 2) for value in refined[index].tolist()])
print("action:  ", [round(value, 2) for value in actions[0].tolist()])

# %% train-text [markdown]
# ## 5 · Training
#
# Beside the stages, two small heads read every cell. One says
# **[startness](glossary.md#startness)** and **endness**: does an action start, or end, here? The
# other says the cell's class: one of the K, or *[background](glossary.md#background)*. The loss is
# the sum of these parts:
#
# | part | of what | loss |
# |---|---|---|
# | boundaries | startness and endness of each cell | cross entropy; cells near a boundary and the others weigh the same |
# | tIoU above 0.9? | output 0 of each proposal, in each stage | cross entropy, on all positives and as many negatives |
# | tIoU | output 1 of each proposal, in each stage | squared error, on as many high (above 0.7), middle and low (to 0.3) ones |
# | offsets | the four offsets, in each stage | smooth absolute error, on good proposals only |
# | ends | is there a start at its start, an end at its end, in each stage | cross entropy, on as many negatives as positives |
# | class | each cell | cross entropy |
#
# A *good* proposal has a tIoU above 0.7 in the first stage, 0.8 in the second and 0.9 in the third:
# a later stage sees proposals that were already refined, and should do the fine work. Most
# proposals fit nothing, so each step draws about as many bad ones as there are good ones; otherwise
# "no" would always be a good answer.

# %% exercise-3-text [markdown]
# ### Exercise 3 · A loss in which both sides weigh the same (medium, 15 minutes)
#
# The first row of the table is yours. Few cells lie near a start, and many do not. `probability`
# and `target` are tensors of the same shape, with values from 0 to 1. A target *above* 0.5 is a
# **[positive](glossary.md#positive)**, whatever its value. The **cross entropy** of a positive is
# -log(p), and that of any other is -log(1 - p). Return the mean of two means: that over all
# positives and that over all others. If one of the groups is empty, return the mean of the other
# one. Add 10⁻⁶ within the logarithms, so that a probability of exactly 0 or 1 stays finite.
# The detector learns by this loss: return a torch number that has its gradient.
#
# <details><summary>Hint</summary>
#
# `torch.where(positive, probability, 1 - probability)` is the probability of the right answer.
# `cost[positive].mean()` is the mean over a group; of an empty group it is `nan`.
#
# </details>


# %% exercise-3
def balanced_bce(probability, target):
    # BEGIN SOLUTION
    positive = target > 0.5
    right = torch.where(positive, probability, 1 - probability)
    cost = -(right + 1e-6).log()
    groups = [group for group in (positive, ~positive) if group.any()]
    return torch.stack([cost[group].mean() for group in groups]).mean()
    # END SOLUTION


check("balanced_bce", balanced_bce)
balanced_bce = run.mine("balanced_bce", balanced_bce)

# %% loss
from etadlite.training.losses import detection_loss

with torch.no_grad():
    untrained = detector(features[None], proposals[None])
    said, goal = untrained.boundaries, targets.boundaries  # [B, 2, T] each
    ours = sum(balanced_bce(said[:, side], goal[:, side]) for side in (0, 1))
    parts = detection_loss(untrained, targets, settings.losses)
assert torch.allclose(ours, parts["boundary"], atol=1e-4)
print(f"near a start lie {int((goal[0, 0] > 0.5).sum())} of {T} cells")
print("before training:", ", ".join(f"{name} {float(part):.2f}" for name, part in parts.items()))

# %% train-text-2 [markdown]
# We now train the package's detector, which has the same parts. 04 trains yours.

# %% train
from etadlite.runs.run import finished, run_training
from etadlite.training.report import read_report

folder, kept = run.out / "feature_based", []
if finished(settings, folder):
    kept.append("training")
    print("kept from an earlier run")
    report = read_report(folder)
else:
    with run.watching("feature-based", folder, epochs):
        report = run_training(settings, folder, progress=run.interactive)
print(f"{1000 * report.seconds_per_step:.0f} ms a step of {settings.training.batch_size} videos")

# %% said-text [markdown] tags=["slide"]
# ## 6 · What it says
#
# We run the trained detector over all test videos and look at ours. `output.refined()` averages
# over the three stages: the refined segments and both tIoUs. Not every proposal goes on. It must
# start where an action may start: in a cell whose startness is a **peak**, above both neighbours,
# or above half the maximum; likewise for its end. This is the **[boundary
# mask](glossary.md#boundary-mask)**. (The first cell may always start, the last always end.)

# %% said
from etadlite.inference.postprocess import boundary_mask, keep_by_boundary
from etadlite.model.checkpoint import load_checkpoint
from etadlite.training.loop import loader

system = load_checkpoint(folder / "checkpoint.safetensors", settings).to(run.device).eval()
with torch.inference_mode():
    outputs = [(b, system(b.inputs)) for b in loader(test_data, settings, training=False)]
    output = system(features[None])  # of our video alone
boundaries = output.boundaries[0].float().cpu()  # [2, T]


def my_mask(values):  # [T]
    around = torch.nn.functional.pad(values, (1, 1))  # beyond the ends lies 0
    peak = (values > around[:-2]) & (values > around[2:])
    return peak | (values > 0.5 * values.max())


mask = torch.stack([my_mask(values) for values in boundaries])
mask[0, 0] = mask[1, -1] = True
assert mask.equal(boundary_mask(*boundaries))
segments, iou = (part[0].float().cpu() for part in output.refined())  # [P, 2] each
keep = keep_by_boundary(segments, mask)
print(f"starts in {int(mask[0].sum())} cells, ends in {int(mask[1].sum())} of {T}")
print(f"{int(keep.sum())} of {P:,} proposals go on")

# %% said-boundaries tags=["slide-more"]
figure = Figure(figsize=(12, 4), layout="constrained")
middles = torch.arange(T) + 0.5
for side, axis in enumerate(figure.subplots(2, 1, sharex=True)):
    name, colour = ("startness", "endness")[side], COLOURS[side]
    wide = targets.boundaries[0, side]
    axis.bar(middles, wide, width=1, color=COLOURS[7], alpha=0.6, label="target")
    axis.plot(middles, boundaries[side], color=colour, label="detector")
    chosen = mask[side]
    axis.plot(middles[chosen], boundaries[side][chosen], "o", color=colour, label="may be one")
    axis.set(ylabel=name, ylim=(0, 1.05), xlim=(0, T))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
axis.set_xlabel("time (cells)")
run.show(figure, "boundaries", "Startness and endness of every cell beside their targets")

# %% said-map tags=["slide"]
score = iou.prod(dim=1)  # [P]: "is it above 0.9?" times the tIoU; both must be high
figure = Figure(figsize=(12, 6), layout="constrained")
for axis, values, title, label in zip(
    figure.subplots(2, 1, sharex=True),
    (score, wanted.iou[0]),
    ("The score: P(tIoU > 0.9) times the predicted tIoU", "The tIoU that it should find"),
    ("score", "tIoU"),
    strict=True,
):
    draw_map(figure, axis, values, title, label)
    axis.plot(actions[:, 0], actions[:, 1] - actions[:, 0], "o", color=COLOURS[3])
run.show(figure, "predicted_map", "The detector's map of proposals above the target map")

# %% said-see [markdown]
# **What to see.** The grey target is a block of three cells around each true start or end. The blue
# and the yellow dots are the cells that the mask lets through; it is generous.
#
# The two maps should have their hills in the same places, but not the same heights. The score is a
# product: the probability that the tIoU is above 0.9, times the predicted tIoU. So it is not a tIoU
# itself, and its hills are narrower. Only the order of the scores matters for what follows. The
# dots are the true actions; where the upper map stays dark around one, that action is missed. Each
# hill holds *many* proposals that score nearly as well as its summit: all of them describe the same
# action.

# %% nms-text [markdown] tags=["slide"]
# ## 7 · From many proposals to detections
#
# Each action should be reported once. **Soft-NMS** (*non-maximum suppression*) picks the best
# proposal and multiplies the score of every other one by exp(-tIoU² / σ): the scores of duplicates
# sink, and those of segments that lie apart stay as they are. Then it picks the next one. **σ**
# (sigma) says how strong the suppression is: if σ is near 0, a little overlap is enough to lower a
# score; if σ is large, no score is lowered.


# %% nms
from etadlite.inference import soft_nms


def my_soft_nms(segments, scores, sigma, count):
    scores, picks, lowered = scores.clone(), [], []
    for _ in range(count):
        best = int(scores.argmax())
        picks.append(best)
        lowered.append(float(scores[best]))
        scores *= torch.exp(-my_tiou(segments, segments[best]).square() / sigma)
        scores[best] = -torch.inf  # picked once
    return segments[picks], torch.tensor(lowered)


crowd, scores = segments[keep].double(), score[keep].double()
few = min(20, len(crowd))
mine, lowered = my_soft_nms(crowd, scores, 0.35, few)
package = soft_nms(crowd, scores, sigma=0.35, max_segments=few)
assert torch.allclose(mine, package[0])
assert torch.allclose(lowered, package[1].float(), atol=1e-4)
for rank in range(3):
    begin, end = mine[rank].tolist()
    print(f"pick {rank + 1}: cells {begin:5.1f} to {end:5.1f}, score {lowered[rank]:.2f}")

# %% detections-text [markdown]
# Each kept segment gets its two best **classes**: those with the highest mean probability over its
# cells. The score of a [detection](glossary.md#detection) is the score of the segment times this
# probability. The package does mask, soft-NMS, classes and the way back to seconds in
# `detections_of`. It must reproduce the result of the test at the end of the training:

# %% detections
from etadlite.inference.detect import detections_of
from etadlite.runs.testing import evaluate


def detect(sigma, classes=2):
    chosen = [f"inference.nms_sigma={sigma}", f"inference.classes_per_segment={classes}"]
    results = {}
    for batch, output in outputs:
        found = detections_of(output, batch.grids, settings.changed(chosen))
        results |= dict(zip(batch.names, found, strict=True))
    return {"version": "notebook 01", "results": results, "external_data": {}}


predictions = detect(settings.inference.nms_sigma)
assert abs(evaluate(settings, predictions).average - report.average) < 1e-3
found = predictions["results"][video.name]
print(f"{len(found)} detections for {len(video.actions)} actions; the first:")
print(json.dumps(found[0]))

# %% detections-picture tags=["slide"]
from etadlite.runs.pictures import one_a_moment

rows = {"true": truth, "best 10": found[:10], "one a moment": one_a_moment(found, len(truth) + 2)}
figure = draw_timeline(frames, video.duration, rows, title=video.name, labels=CLASSES)
run.show(figure, "detections", "Frames above true actions and detections; scores on the bars")

# %% detections-see [markdown] tags=["slide-more"]
# **What to see.** The number on a bar is its score, and paler means lower. The row *one a moment*
# leaves out every detection that overlaps a better one by half, as a person would.

# %% judge-text [markdown] tags=["slide"]
# ## 8 · How it is judged
#
# The judgement must not depend on where we cut the list. So walk down *all* detections of one
# class, the best first. If a detection and a true action that is still free have a tIoU that
# reaches a [threshold](glossary.md#threshold), the detection takes this action: it is a **hit**. A
# second detection of the same action is a false alarm. After each, note the
# **[precision](glossary.md#precision)**, the share of hits so far, and the
# **[recall](glossary.md#recall)**, the share of actions found so far.
#
# Precision can recover as one walks on, so it is **interpolated**: at each recall, take the best
# precision from there on. The area below this curve is the **[average
# precision](glossary.md#average-precision) (AP)**. Its mean over the classes is **mAP**; ours is
# also averaged over tIoU thresholds from 0.3 to 0.7.

# %% judge
three = torch.tensor([[0.0, 10.0], [20.0, 30.0], [40.0, 50.0]])  # true actions
said = torch.tensor([[1.0, 10.0], [0.0, 9.0], [55.0, 65.0], [21.0, 30.0], [41.0, 52.0]])
free, hits = torch.ones(3), []
for segment in said:  # best first
    near = my_tiou(segment, three) * free
    hits.append(bool(near.max() >= 0.5))
    if hits[-1]:
        free[near.argmax()] = 0  # taken
hits = torch.tensor(hits)
precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
recall = hits.cumsum(0) / len(three)
print("hits:     ", hits.int().tolist())
print("precision:", [round(value, 2) for value in precision.tolist()])
print("recall:   ", [round(value, 2) for value in recall.tolist()])

# %% average
from etadlite.evaluation import mean_average_precision

interpolated = precision.flip(0).cummax(dim=0).values.flip(0)
by_hand = (interpolated[hits].sum() / len(three)).item()

listed = [{"segment": segment, "label": "wave"} for segment in three.tolist()]
database = {"one": {"subset": "tiny", "duration": 70, "annotations": listed}}
scored = [
    {"segment": segment, "label": "wave", "score": 0.9 - rank / 10}
    for rank, segment in enumerate(said.tolist())
]
package = mean_average_precision(
    {"database": database}, {"results": {"one": scored}}, subset="tiny", tiou=[0.5]
)
assert abs(package.average - by_hand) < 1e-6
print(f"average precision by hand {by_hand:.3f}, by the package {package.average:.3f}")

# %% average-picture tags=["slide-more"]
figure = Figure(figsize=(7, 3.4), layout="constrained")
axis = figure.subplots()
steps = [0.0, *recall[hits].tolist()]
area = [interpolated[hits][0].item(), *interpolated[hits].tolist()]
axis.fill_between(steps, area, step="pre", color=COLOURS[5], alpha=0.4, label="AP: this area")
axis.plot(recall, precision, "o--", color=COLOURS[0], label="after each detection")
axis.plot(steps, area, drawstyle="steps-pre", color=COLOURS[3], label="interpolated")
axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05))
axis.spines[["top", "right"]].set_visible(False)
axis.legend(loc="lower left", frameon=False)
run.show(figure, "precision", "Precision over recall of five detections; AP is the area below")

# %% average-see [markdown] tags=["slide-more"]
# **What to see.** Two false alarms stand above the second and the third hit: at these, the
# interpolated precision is 0.6 instead of 1.

# %% ladder-text [markdown] tags=["slide"]
# **A number needs a floor and a ceiling.** We judge four systems on the same test videos:
#
# 1. **constant** says the same for every video: segments as long as the median training action, one
#    every half length, each with all classes, scored by how common the classes are. It never looks
#    at the video.
# 2. **detector** is the one that we have trained.
# 3. **detector, class ignored** has the same segments, judged as if there were only one class,
#    *action*.
# 4. **ceiling** takes, for each true action, the proposal on the grid that fits best, with the
#    right class.

# %% ladder
actions_seen = [a for v in read_annotations(annotations, "training").values() for a in v.actions]
median = float(np.median([a.end - a.start for a in actions_seen]))
common = {name: np.mean([a.label == name for a in actions_seen]) for name in CLASSES}
constant, ceiling = {}, {}
for name, one in tests.items():
    starts = np.arange(0, one.duration - median, median / 2).tolist()
    constant[name] = [
        {"segment": [start, start + median], "label": label, "score": share}
        for start in starts
        for label, share in common.items()
    ]
    spans = proposals * one.duration / T  # [P, 2] in seconds
    best = [my_tiou(spans, torch.tensor([a.start, a.end])).argmax() for a in one.actions]
    ceiling[name] = [
        {"segment": spans[i].tolist(), "label": a.label, "score": 1.0}
        for i, a in zip(best, one.actions, strict=True)
    ]


# %% ladder-judged
def without_classes(items):
    return [item | {"label": "action"} for item in items]


thresholds = list(settings.inference.tiou)
as_one = json.loads(annotations.read_text())
for entry in as_one["database"].values():
    entry["annotations"] = without_classes(entry["annotations"])
single = detect(settings.inference.nms_sigma, classes=1)["results"]
single = {"results": {name: without_classes(found) for name, found in single.items()}}
ladder = {
    "constant": evaluate(settings, {"results": constant}),
    "detector": evaluate(settings, predictions),
    "detector, class ignored": mean_average_precision(
        as_one, single, subset="validation", tiou=thresholds
    ),
    "ceiling": evaluate(settings, {"results": ceiling}),
}
for name, result in ladder.items():
    print(f"{name:24} average mAP {100 * result.average:5.1f} %")

# %% ladder-picture tags=["slide-more"]
figure = Figure(figsize=(8, 3.8), layout="constrained")
axis = figure.subplots()
colours = (COLOURS[7], COLOURS[0], COLOURS[5], COLOURS[2])
for (name, result), colour in zip(ladder.items(), colours, strict=True):
    axis.plot(thresholds, 100 * result.per_tiou, "o-", color=colour, label=name)
axis.set(xlabel="tIoU that makes a hit", ylabel="mAP (%)", ylim=(0, 104), xticks=thresholds)
axis.grid(alpha=0.3)
axis.spines[["top", "right"]].set_visible(False)
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
run.show(figure, "ladder", "mAP over the tIoU threshold: constant, detector, ceiling")

# %% ladder-see [markdown] tags=["slide-more"]
# **What to see** (in the `laptop` profile). The detector reaches 45 % and the floor 4 %: the
# detector does use the video. The ceiling of the grid is 99.5 %: rounding to cells costs almost
# nothing. The gap between the two blue lines, from 45 % to 67 %, is the price of wrong classes. The
# gap from the upper blue line to the ceiling is the price of missed and misplaced actions; it
# widens as the threshold asks for more precise ends. Part of both lies before the detector: what a
# frozen encoder from the studio does not show, no detector can bring back.

# %% dial-text [markdown]
# **One experiment on one dial.** How strong should soft-NMS be? With a huge σ all duplicates stay,
# and they are false alarms. With a tiny σ, every segment that touches a better one is gone, whether
# it is right or not. Where do you expect the best mAP? In JupyterLab the slider moves σ; without a
# running kernel you see four of its positions.

# %% dial
sigmas = [0.01, 0.03, 0.1, 0.35, 1.0, 3.0, 10.0, 100.0]
sweep = {sigma: detect(sigma) for sigma in sigmas}
by_sigma = [100 * evaluate(settings, said).average for said in sweep.values()]
figure = Figure(figsize=(8, 3.4), layout="constrained")
axis = figure.subplots()
axis.semilogx(sigmas, by_sigma, "o-", color=COLOURS[0])
axis.axvline(0.35, color=COLOURS[7], linestyle="--", label="as published: 0.35")
axis.set(xlabel="sigma (small: strong suppression)", ylabel="average mAP (%)", ylim=(0, None))
axis.grid(alpha=0.3)
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
run.show(figure, "sigma", "Average mAP over the sigma of soft-NMS")

# %% dial-slider tags=["slide-more"]
from etadlite.viz.widgets import slider


def with_sigma(sigma):
    rows = {"true": truth, "best 10": sweep[sigma]["results"][video.name]}
    return draw_timeline(frames, video.duration, rows, top=10, labels=CLASSES)


alt = "Timelines with the ten best detections at four strengths of soft-NMS"
run.explore(slider(with_sigma, sigmas, "sigma", alt), "sigma_timelines")

# %% dial-see [markdown] tags=["slide-more"]
# **What to see.** With a large σ the ten best detections crowd on the actions of which the detector
# is most certain, and mAP falls, because duplicates are false alarms. A small σ costs little here:
# our actions never overlap, so hardly any right detection is suppressed, and *soft* suppression
# lowers scores without removing anything.

# %% compare-text [markdown]
# ## 9 · Predicted against measured

# %% compare
measured = {
    "constant": 100 * ladder["constant"].average,
    "detector": 100 * ladder["detector"].average,
    "ceiling": 100 * ladder["ceiling"].average,
    "faster": races["this detector"][1],
}
print(f"{'':10}{'your guess':>12}{'measured':>12}")
for name, value in measured.items():
    guessed = "-" if guess[name] is None else f"{guess[name]:.1f}"
    print(f"{name:10}{guessed:>12}{value:12.1f}")

# The claim of this notebook: the features tell a detector where actions are, though not all.
assert 2 * measured["constant"] < measured["detector"] < measured["ceiling"]

# %% exercises [markdown]
# ## 10 · One more exercise

# %% exercise-4-text [markdown]
# ### Exercise 4 · Hard NMS (harder, 15 minutes)
#
# Hard [NMS](glossary.md#NMS) is older than soft-NMS: pick the best segment, *remove* all that
# overlap it with a tIoU of at least `threshold`, and continue with what is left. Return the indices
# of the picked segments, best first, as a list. `segments` is [S, 2], `scores` is [S], in any
# order. A segment with a score of 0 is picked like any other.
#
# <details><summary>Hint</summary>
#
# Walk through `scores.argsort(descending=True).tolist()`. Keep an index if its tIoU with each one
# kept so far stays below the threshold.
#
# </details>


# %% exercise-4
def hard_nms(segments, scores, threshold):
    # BEGIN SOLUTION
    kept = []
    for index in scores.argsort(descending=True).tolist():
        if all(tiou(segments[index], segments[other]) < threshold for other in kept):
            kept.append(index)
    return kept
    # END SOLUTION


if check("hard_nms", hard_nms):
    print(f"{len(hard_nms(crowd, scores, 0.5))} of {len(crowd)} segments are left in our video")

# %% full-run [markdown]
# ## 11 · The full run
#
# On the large generated data set, best on a graphics card:
#
# ```
# etadlite notebook 01_feature_based_tad -p profile full --out runs/large
# ```
#
# And on *real* features, those of ActivityNet-1.3 by TSP, a frozen encoder, without a notebook;
# `--resume last` continues a stopped run:
#
# ```
# etadlite train anet_tsp
# ```
#
# The released code reports 37.8 % average mAP there. The command says which files it needs and
# where they must lie.

# %% metrics
run.finish(
    {
        "feature-based, mAP (%)": measured["detector"],
        "class ignored, mAP (%)": 100 * ladder["detector, class ignored"].average,
        "constant, mAP (%)": measured["constant"],
        "layer before RoIAlign, times faster": measured["faster"],
    },
    kept=kept,
    ladder={name: result.per_tiou.tolist() for name, result in ladder.items()},
    layer_first={name: {"predicted": p, "measured": m} for name, (p, m) in races.items()},
    sigma=dict(zip(map(str, sigmas), by_sigma, strict=True)),
    seconds_per_step=report.seconds_per_step,
)

# %% summary [markdown] tags=["slide"]
# ## Summary
#
# - In time, *all* proposals can be listed; a detector paints their map.
# - RoIAlign is a matrix of interpolation weights; a linear layer behind it can be applied first,
#   which is faster.
# - Soft-NMS lowers duplicates; mAP judges the whole ranked list, class by class.
# - A floor and a ceiling show what a score is worth.

# %% limits [markdown] tags=["slide-more"]
# ## Limits
#
# There is one seed and a small test set, so differences of a few points mean little. Published
# detectors take classes from a separate video classifier, which fails where one video holds several
# classes.

# %% references [markdown]
# ## References
#
# - S. Liu et al., *ETAD: Training Action Detection End to End on a Laptop*, CVPR Workshops 2023,
#   [arXiv:2205.07134](https://arxiv.org/abs/2205.07134): this detector.
# - T. Lin et al., *BSN*, ECCV 2018, and *BMN*, ICCV 2019: boundaries and the map of proposals.
# - K. He et al., *Mask R-CNN*, ICCV 2017: RoIAlign.
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

show_quiz("01_feature_based_tad")
