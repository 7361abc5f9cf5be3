# %% card [markdown] tags=["slide"]
# # 4 · Proposal sampling: must every segment be trained?
#
# **The question.** A [detector](glossary.md#detector) judges *[proposals](glossary.md#proposal)*:
# all [segments](glossary.md#segment) of a video that could be an [action](glossary.md#action). A
# video cut into T [cells](glossary.md#cell) of time has T (T + 1) / 2 of them; for T = 128 that is
# 8,256, for every video, in every training step. ETAD trains on 6 % of them. What does this save,
# what does it cost, and which 6 % should it be?
#
# **You will** draw the map of all proposals, see how alike neighbours on it are, write ways to
# choose from it, predict what a choice costs, and test by training whether 6 % are enough. At the
# end you put together what you have written in 01 to 04, and train it [end to
# end](glossary.md#end-to-end).
#
# **You need** PyTorch; it helps to have read the notebooks 00 and 01.
#
# **What it takes**, from recorded runs:
#
# <!-- card -->
#
# **Shapes** have one legend everywhere: **B** videos, **N** snippets, **C** channels, **T** cells
# of time, **P** proposals; here also **D**, the longest duration of a proposal in cells.

# %% parameters-text [markdown]
# ### Parameters
#
# Run the notebook as it is, or change a value here first. `smoke` only proves that everything runs;
# its numbers mean nothing. Paths are relative to `notebooks/`.

# %% parameters tags=["parameters"]
# Parameters of this notebook; papermill can replace each of them.
profile = "laptop"  # smoke, laptop or full
data_root = "../data"  # where the generated videos are kept
out_dir = "../runs/04_proposal_sampling"  # pictures, metrics, weights
seed = 0  # governs weights, sampling and order
device = "auto"  # auto, cpu, cuda or mps
interactive = "auto"  # bars and sliders: true, false or auto

# %% setup
import re
import time
from itertools import pairwise
from math import isqrt

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
# ## 1 · The map of all proposals
#
# This notebook is about the last choice of a training step, which is bright in the picture: the
# proposals that pass 2 judges.

# %% method tags=["slide-more"]
from etadlite.viz.method import draw_method

alt = "A training step of ETAD in three passes; bright: the proposals that are sampled in pass 2"
run.show(draw_method("proposals"), "method", alt)

# %% features-text [markdown]
# Our videos show a stick figure that acts now and then. A video is cut into T = 128 equal **cells**
# of time, as in the paper and twice as finely as in the other notebooks, and a
# [frozen](glossary.md#frozen) *[encoder](glossary.md#encoder)* has turned each cell into a
# **[feature](glossary.md#feature)**, C = 48 numbers. To keep the time of a training, the detector's
# layers are half as wide.

# %% data
from etadlite.encoders.build import build_encoder
from etadlite.prepare.extract import extract_features
from etadlite.runs.demo import demo_settings
from etadlite.stickfigures.dataset import make_dataset
from etadlite.training.loop import open_split

make_dataset(run.data, run.size, progress=run.interactive)
larger_map = (
    "data.snippets=128",  # T
    "detector.max_duration=40",  # D
    f"data.features={run.data / 'features_128'}",
    "detector.hidden=64",
    "detector.head=32",
)
settings = demo_settings("feature-based", run.data, run.seed, (*run.changes, *larger_map))
encoder = build_encoder(settings.encoder).to(run.device)
extract_features(settings, encoder, settings.data.features, progress=run.interactive)
data = open_split(settings, training=True)
videos = [data[index] for index in range(len(data))]
features = torch.stack([video.inputs for video in videos])
print(f"{len(videos)} training videos; features [B, C, T]: {list(features.shape)}")

# %% proposals-text [markdown] tags=["slide"]
# A **proposal** is a segment from one cell border to a later one: start *s*, duration *d*, both
# whole numbers of cells. Laid out by start and duration, all proposals form a **map**. Our actions
# are short, so durations stop at D = 40 cells. A duration d fits in at T − d + 1 places:

# %% proposals
from etadlite.detector import proposal_map

cells, longest = settings.data.snippets, settings.detector.max_duration
by_place, valid = proposal_map(cells, longest)  # [D, T, 2] start and end, [D, T]
proposals = by_place[valid]  # [P, 2], shortest first
durations = proposals[:, 1] - proposals[:, 0]
total = sum(cells - d + 1 for d in range(1, longest + 1))
print(f"{total:,} by the sum, {len(proposals):,} on the map; a triangle for D = T")
assert total == len(proposals)

# %% tiou-text [markdown]
# How well does a proposal fit an action? **Temporal IoU ([tIoU](glossary.md#tIoU))**: the time they
# share, divided by the time that they cover together. It is 1 for a perfect fit, 0 where they do
# not touch. For each proposal, the action of highest tIoU counts.

# %% tiou
from etadlite.base.segments import tiou


def fit(actions):  # [A, 2] -> [P], the tIoU with the nearest action
    if not len(actions):
        return torch.zeros(len(proposals))
    return tiou(actions[:, None], proposals).amax(dim=0)


fits = torch.stack([fit(video.actions) for video in videos])  # [B, P]
print("tIoU of every proposal of every training video [B, P]:", list(fits.shape))

# %% map-picture tags=["slide-more"]
shown = int((fits > 0.7).sum(dim=1).argsort()[len(videos) // 2])  # a typical video


def draw_map(axis, values, **options):
    grid = torch.full(valid.shape, torch.nan)
    grid[valid] = values
    extent = (-0.5, cells - 0.5, 0.5, longest + 0.5)
    axis.set(xlim=(-0.5, cells - 0.5), ylim=(0.5, longest + 0.5))
    options = {"cmap": "cividis", "vmin": 0, "vmax": 1, **options}
    return axis.imshow(grid, origin="lower", aspect="auto", extent=extent, **options)


figure = Figure(figsize=(12, 4), layout="constrained")
axis = figure.subplots()
image = draw_map(axis, fits[shown])
for s, e in videos[shown].actions.tolist():
    axis.plot(s, e - s, "o", color="none", markeredgecolor=COLOURS[3], markersize=14, mew=2)
axis.set(xlabel="start (cell)", ylabel="duration (cells)", title="Every point is a proposal")
figure.colorbar(image, label="tIoU with the nearest action")
run.show(figure, "map", "Map of proposals by start and duration, bright near the circled actions")

# %% map-see [markdown] tags=["slide-more"]
# **What to see.** The circles are the true actions, each on top of its bright peak. The peaks of
# short actions are narrow, those of long ones broad: one cell more or less matters only to a short
# action. The white corner holds segments that would end after the video.

# %% guess-text [markdown]
# **Predict first.** A proposal is called *[positive](glossary.md#positive)* if its tIoU is high,
# say above 0.7. Which share of the map is positive? And above 0.9?

# %% guess
guess = {  # your guesses in percent; None where you prefer to wait
    "positive above 0.7": None,
    "positive above 0.9": None,
}

# %% shares
edges = [0, 1e-9, 0.3, 0.7, 0.9, 1.01]
names = ["touches no action", "up to 0.3", "0.3 to 0.7", "0.7 to 0.9", "above 0.9"]
shares = [
    100 * float(((fits >= low) & (fits < high)).float().mean()) for low, high in pairwise(edges)
]
for name, share in zip(names, shares, strict=True):
    print(f"{name:>18} {share:6.2f} %  {'#' * round(share)}")
measured = {"positive above 0.7": shares[3] + shares[4], "positive above 0.9": shares[4]}
for name, share in measured.items():
    guessed = "-" if guess[name] is None else f"{guess[name]} %"
    print(f"{name}: your guess {guessed}, measured {share:.2f} %")

# %% shares-see [markdown] tags=["slide-more"]
# **What to see.** Most proposals touch an action. But only 6.6 % of them are positive, and only
# 0.58 % are nearly perfect: the map is badly *unbalanced*. Trained on all proposals alike, a
# detector that never says "above 0.9" would be right for 99.4 % of them.

# %% teach-text [markdown] tags=["slide"]
# ## 2 · What a proposal teaches
#
# From each proposal that it is given, the detector learns three things: its tIoU (as a number, and
# whether it is above 0.9), how to move its ends to fit the action
# (*[offsets](glossary.md#offsets)*, in units of its duration), and whether its ends are really ends
# of an action. `stage_targets` computes what the detector should say. Here we ask it about a
# perfect proposal, about one that starts two cells late, and about one far away:

# %% teach
from etadlite.training.losses import draw_as_many, stage_targets
from etadlite.training.targets import make_targets

video = videos[shown]
first = video.actions[0].round()
far = torch.tensor([cells - 1.0, cells])
three = torch.stack((first, first + torch.tensor([2.0, 0.0]), far))[None]  # [1, 3, 2]
classes = len(settings.detector.classes)
wanted = make_targets([video.actions], [video.labels], three, cells, classes)
taught = stage_targets(three, wanted)
print(f"the action lies at {[round(x, 1) for x in video.actions[0].tolist()]}")
for where, score, move in zip(three[0].tolist(), taught.iou[0], taught.offsets[0], strict=True):
    print(f"{where}: tIoU {score:.2f}, move the start by {move[0]:+.2f}, the end by {move[1]:+.2f}")

# %% balance-text [markdown]
# Only good proposals teach offsets: those above tIoU 0.7 in the first of three
# **[stages](glossary.md#stage)** (each stage judges the segments that the stage before has moved).
# Against the imbalance, the losses draw **as many negatives as there are positives** and leave out
# the rest. So of a full map, how much is used?

# %% balance
from etadlite.base.draws import Draws

positive = fits > 0.9
drawn = draw_as_many(~positive, positive, Draws(range(len(videos))), guarded=True)
used = (positive | drawn).float().sum(dim=1)
print(f"positives a video {positive.float().sum(dim=1).mean():.1f}, drawn negatives", end=" ")
print(f"{drawn.float().sum(dim=1).mean():.1f}: used {used.mean():.1f} of {len(proposals):,}")

# %% balance-see [markdown]
# **What to see.** The loss for "is it above 0.9?" reads a handful of proposals, and the detector
# has worked on all of them. This is a first hint that sampling *before* the detector may cost
# little accuracy. (Other parts of the loss read more proposals, but none reads all.)

# %% alike-text [markdown] tags=["slide"]
# ## 3 · Neighbours say the same
#
# Here is a second hint. Move a proposal by one cell: it looks at nearly the same features, and its
# tIoU is nearly the same. How quickly does that likeness fade? We move all proposals of a duration
# by k cells and correlate before with after: the target (tIoU), and the detector's input. That is
# what **[RoIAlign](glossary.md#RoIAlign)** cuts out of the features: a proposal's part, resampled
# to 16 [bins](glossary.md#bin).

# %% alike
from etadlite.detector.roi import roi_align


def correlation(a, b):  # of tensors [B, n, ...] over everything
    a, b = (x - x.mean(dim=(0, 1), keepdim=True) for x in (a, b))
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())


def fade(duration, shifts):  # how alike targets and inputs are after each shift
    row = durations == duration
    batch = proposals[row].expand(len(videos), -1, -1)
    inputs = roi_align(features, batch, 16, aligned=True)  # [B, n, C, 16]
    return [
        [correlation(x[:, : x.shape[1] - k], x[:, k:]) for k in shifts]
        for x in (fits[:, row], inputs)
    ]


shifts = range(17)
faded = {duration: fade(duration, shifts) for duration in (2, 8, 24)}
for duration, (targets, inputs) in faded.items():
    print(f"d = {duration:2d}: moved by 1 cell, tIoU {targets[1]:.2f}, input {inputs[1]:.2f}")

# %% alike-picture tags=["slide-more"]
figure = Figure(figsize=(11, 3.6), layout="constrained")
axes = figure.subplots(1, 2, sharey=True)
for number, title in enumerate(("target: tIoU", "input: features cut out by RoIAlign")):
    for (duration, curves), colour in zip(faded.items(), COLOURS, strict=False):
        label = f"duration {duration} cells"
        axes[number].plot(shifts, curves[number], "o-", color=colour, label=label, markersize=4)
    axes[number].axhline(0, color=COLOURS[7])
    axes[number].set(xlabel="moved by (cells)", title=title)
    axes[number].grid(alpha=0.3)
    axes[number].spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("correlation")
axes[1].legend(frameon=False)
run.show(figure, "alike", "Correlation of neighbouring proposals falls with distance")

# %% alike-see [markdown]
# **What to see.** *[Target](glossary.md#target):* a long proposal, moved by one cell, should say
# almost what it said before; one of two cells should soon say something else. (At 24 cells the
# curve ends below zero: where one fits an action, its neighbour 16 cells on does not.) *Input:* at
# every duration, it falls quickly over two cells, then slowly towards what two places of one video
# share anyway, such as light and clothes.
#
# So a thin sample holds most of what the map has to say about *long* proposals, and less about
# *short* ones.

# %% strategies-text [markdown] tags=["slide"]
# ## 4 · Seven ways to choose
#
# A **strategy** is a function `(context, count) -> proposals [B, count, 2]`, and picks no proposal
# twice. The context offers the P valid `proposals`, the true `actions`, and `draws`: a stream of
# random numbers for each video, so that what is drawn for a video never depends on its batch. Only
# **random** is the paper's method; the others are definitions of this project
# ([grid](glossary.md#grid) and [block](glossary.md#block) stand in the paper's code, too).
#
# We write each for one video in plain PyTorch. Given the same random numbers, it must pick
# *exactly* what the package picks. First **random**: give every proposal a random number and take
# the largest. Each has the same chance.

# %% same
from etadlite.sampling.proposals import PROPOSAL_STRATEGIES, ProposalContext, proposal_count

mine = {}


def same(name, pick):
    """Keep a strategy if it picks what the package's picks, for several ratios and videos."""
    for number, ratio in enumerate((0.01, 0.06, 0.25, 1.0)):
        actions = videos[number].actions
        count = proposal_count(len(proposals), ratio)
        ours = proposals[pick(Draws([number]), actions, count)]
        context = ProposalContext(Draws([number]), proposals, [actions])
        assert torch.equal(ours, PROPOSAL_STRATEGIES[name](context, count)[0]), name
    mine[name] = pick
    print(f"{name}: equal to the package's at 1, 6, 25 and 100 %")


def random_pick(draws, actions, count):
    return draws.rand(len(proposals))[0].topk(count).indices


same("random", random_pick)

# %% grid-text [markdown]
# **Grid.** The picks form a regular lattice: every *step*-th duration, and equal
# [strides](glossary.md#stride) along these rows. Two random numbers shift the lattice, so that
# every proposal has its turn sooner or later.


# %% grid
def grid_pick(draws, actions, count):
    shift = draws.rand(2)[0].double()  # of the rows, and along them
    step = isqrt(len(proposals) // count)
    distance = (durations.long() - int(shift[0] * step)) % step  # 0 on the chosen rows
    order = distance.argsort(stable=True)  # the chosen rows come first
    lattice = max(int((distance == 0).sum()), count)
    places = (torch.arange(count) + shift[1]) * lattice / count
    return order[places.long()]


same("grid", grid_pick)

# %% block-text [markdown]
# **Block.** This is the opposite of picks that are spread out: a square around one random proposal.
# Its proposals repeat each other.


# %% block
def block_pick(draws, actions, count):
    centre = draws.rand(len(proposals))[0].argmax()
    place = torch.stack((proposals[:, 0], durations), dim=1)  # start and duration
    ring = (place - place[centre]).abs().amax(dim=1)  # 0 in the centre, 1 around it, ...
    tie = draws.rand(len(proposals))[0] / 2  # of the outermost ring some are left out
    return (ring + tie).topk(count, largest=False).indices


same("block", block_pick)

# %% balanced-text [markdown] tags=["slide"]
# **Balanced.** Sort the proposals into bins and draw as equal a share as can be from each. If a bin
# is too small for its share, the other bins give the rest.
# **[IoU-balanced](glossary.md#IoU-balanced)** bins by tIoU, against the imbalance.
# **Scale-balanced** bins by *[octaves](glossary.md#octave)* of duration (1 cell, 2 to 3, 4 to 7,
# ...), as short proposals have fewer neighbours that speak for them.


# %% balanced
def balanced(draws, bins, number, count):
    size = bins.bincount(minlength=number)
    quota = torch.zeros_like(size)
    for _ in range(number):  # in each round, bins fill up or the rest is smaller than their number
        open_bins = int((size > quota).sum())
        share = (count - int(quota.sum())) // max(open_bins, 1)
        quota = torch.minimum(size, quota + share)
    luck = draws.rand(number)[0].masked_fill(size <= quota, -1)
    quota[luck.argsort(descending=True)[: count - int(quota.sum())]] += 1  # what is left over
    order = draws.rand(len(proposals))[0].argsort()
    return torch.cat([order[bins[order] == b][: quota[b]] for b in range(number)])


# %% balanced-two
def iou_pick(draws, actions, count):
    bins = (fit(actions) * 5).long().clamp(max=4)  # five bins of equal width
    return balanced(draws, bins, 5, count)


def scale_pick(draws, actions, count):
    octave = (durations + 0.5).log2().long()
    return balanced(draws, octave, int(octave.max()) + 1, count)


same("iou_balanced", iou_pick)
same("scale_balanced", scale_pick)

# %% farthest-text [markdown] tags=["slide"]
# **[Farthest-point](glossary.md#farthest-point).** Pick one by one, each as far as can be from all
# picks so far. The distance is measured between points (centre, logarithm of the duration):
# doubling a duration counts the same for short and long. Choosing among random candidates, twice as
# many as picks, keeps it random.


# %% farthest
def farthest_pick(draws, actions, count):
    candidates = draws.rand(len(proposals))[0].topk(min(2 * count, len(proposals))).indices
    points = torch.stack((proposals.mean(dim=1), durations.log()), dim=1)
    low, high = points.aminmax(dim=0)
    points = ((points - low) / (high - low))[candidates]  # both coordinates from 0 to 1
    picked, nearest = [0], torch.full((len(points),), torch.inf)
    for _ in range(count - 1):
        distance = (points - points[picked[-1]]).square().sum(dim=1)
        nearest = torch.minimum(nearest, distance)  # to the nearest pick so far
        picked.append(int(nearest.argmax()))
    return candidates[picked]


same("farthest", farthest_pick)

# %% kdpp-text [markdown]
# **[k-DPP](glossary.md#k-DPP)** (determinantal point process) is the random cousin of
# farthest-point: a set of k items is drawn with a chance proportional to the *determinant* of the
# matrix of their similarities. For two items of similarity *q* this is 1 − q²: two equal items are
# never drawn together, and two items that have nothing in common are drawn freely. Drawing needs
# eigenvectors, so we use the package's function.

# %% kdpp
for q in (0.0, 0.5, 0.9, 1.0):
    pair = torch.tensor([[1.0, q], [q, 1.0]])
    print(f"similarity {q:.1f}: determinant {torch.linalg.det(pair):.2f}")


def kdpp_pick(draws, actions, count):
    context = ProposalContext(draws, proposals, [actions])
    picked = PROPOSAL_STRATEGIES["kdpp"](context, count)[0]
    return (picked[:, None] == proposals).all(dim=2).long().argmax(dim=1)  # as indices


same("kdpp", kdpp_pick)

# %% assignment-setup tags=["assignment"]
import torch

from etadlite.base.segments import tiou
from etadlite.course import check

# %% exercise-1-text [markdown]
# ### Exercise 1 · Never without a positive (harder, 15 minutes)
#
# A random 6 % may miss a short action altogether. Write a strategy `(context, count) -> [B, count,
# 2]` that picks at random, none twice, but always includes, for every action of a video, the
# proposal of highest tIoU, even if that tIoU is low. `context.proposals` is [P, 2], and
# `context.actions` is a list of B tensors [A, 2]. A video may have no action: [0, 2]. All others
# have the same chance, and each is drawn by itself. What a video gets depends on its own row of
# `context.draws.rand(...)` only. The answer is saved in `my_etad.py`; section 8 trains with it.
#
# <details><summary>Hint</summary>
#
# `context.draws.rand(P)` gives random numbers [B, P], of which *random* takes the largest `count`.
# Give the proposals that must be in a number above 1 first.
#
# </details>


# %% exercise-1
def with_positives(context, count):
    # BEGIN SOLUTION
    luck = context.draws.rand(len(context.proposals))  # [B, P]
    for own, actions in zip(luck, context.actions, strict=True):
        if len(actions):
            own[tiou(actions[:, None], context.proposals).argmax(dim=1)] = 2
    return context.proposals[luck.topk(count, dim=1).indices]
    # END SOLUTION


check("with_positives", with_positives)
with_positives = run.mine("with_positives", with_positives)


# %% exercise-1-used
def own_pick(draws, actions, count):
    picked = with_positives(ProposalContext(draws, proposals, [actions]), count)[0]
    return (picked[:, None] == proposals).all(dim=2).long().argmax(dim=1)  # as indices


mine["exercise 1"] = own_pick
at = own_pick(Draws([run.seed]), videos[shown].actions, proposal_count(len(proposals), 0.06))
best = tiou(videos[shown].actions[:, None], proposals[at]).amax(dim=1)
print("best tIoU of each action in the sample:", [round(value, 2) for value in best.tolist()])

# %% picks-text [markdown] tags=["slide"]
# ## 5 · What each picks
#
# We take the same video and 6 % of its proposals. **Predict first:** which strategies will find the
# narrow peaks of short actions?

# %% picks tags=["slide-more"]
count = proposal_count(len(proposals), 0.06)
figure = Figure(figsize=(12, 5), layout="constrained")
axes = figure.subplots(2, 4, sharex=True, sharey=True)
for axis, (name, pick) in zip(axes.ravel(), mine.items(), strict=True):
    draw_map(axis, fits[shown], alpha=0.75)
    at = pick(Draws([run.seed]), videos[shown].actions, count)
    axis.plot(proposals[at, 0], durations[at], ".", color=COLOURS[3], markersize=5)
    axis.set_title(name)
print(f"{count} of {len(proposals):,} proposals each")
figure.supxlabel("start (cell)")
figure.supylabel("duration (cells)")
run.show(figure, "picks", "Eight small maps of proposals with the picks of each strategy as dots")

# %% picks-see [markdown]
# **What to see.** *Random* leaves gaps and clumps, *grid* leaves none, and *block* sees only one
# corner. *IoU-balanced* crowds on the peaks, because it knows the true actions. *Scale-balanced*
# and *farthest* turn towards the short durations at the bottom. *k-DPP* looks random, with fewer
# picks that are nearly equal. The last map shows your own strategy, or *random* once more if you
# have skipped the exercise. Here are the numbers over all training videos:


# %% mixture
def mixture(pick):
    picked = torch.stack([pick(Draws([i]), v.actions, count) for i, v in enumerate(videos)])
    of_fits, of_durations = fits.gather(1, picked), durations[picked]
    by_fit = torch.histogram(of_fits.flatten(), torch.tensor([*edges[:1], *edges[2:]])).hist
    octaves = torch.tensor([0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 40.5])
    by_duration = torch.histogram(of_durations.flatten(), octaves).hist
    return by_fit / by_fit.sum(), by_duration / by_duration.sum()


everything = {"all": lambda draws, actions, count: torch.arange(len(proposals))}
mixtures = {name: mixture(pick) for name, pick in (everything | mine).items()}
for name, (by_fit, _) in mixtures.items():
    number = count if name != "all" else len(proposals)
    print(f"{name:>14}: {number * by_fit[2:].sum():5.1f} above tIoU 0.7 a video", end="")
    print(f", {number * by_fit[3]:5.1f} above 0.9")

# %% mixture-picture tags=["slide"]
import matplotlib

figure = Figure(figsize=(12, 4.2), layout="constrained")
axes = figure.subplots(1, 2, sharey=True)
kinds = (
    ("tIoU with the nearest action", ["to 0.3", "to 0.7", "to 0.9", "to 1"]),
    ("duration (cells)", ["1", "2-3", "4-7", "8-15", "16-31", "32-40"]),
)
for number, (axis, (title, labels)) in enumerate(zip(axes, kinds, strict=True)):
    values = 100 * torch.stack([each[number] for each in mixtures.values()])  # [rows, bins]
    left = values.cumsum(dim=1) - values
    for part, label in enumerate(labels):
        colour = matplotlib.colormaps["cividis"](part / (len(labels) - 1))
        axis.barh(list(mixtures), values[:, part], left=left[:, part], color=colour, label=label)
    axis.legend(ncols=6, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)
    axis.set(xlim=(0, 100), xlabel=f"share of the picks (%), by {title}")
    axis.spines[["top", "right"]].set_visible(False)
axes[0].invert_yaxis()
run.show(figure, "mixture", "Shares of the picks by tIoU and by duration, for each strategy")

# %% mixture-see [markdown] tags=["slide-more"]
# **What to see.** *Random*, *grid*, *block* and *k-DPP* nearly keep the mixture of the map: it is
# as unbalanced as before, and 6 % hold 1.2 to 1.7 proposals above 0.9 per video. *Scale-balanced*
# has even fewer positives: a segment of one cell seldom fits an action. Only *IoU-balanced* has
# several times as many: 11.6. More positives need not be better, though: in the test the detector
# judges the *whole* map.

# %% dial-text [markdown] tags=["slide"]
# **One dial: the [ratio](glossary.md#ratio).** How well does a random sample represent the map? For
# every proposal, we take the tIoU with its nearest *picked* proposal. Turn the dial: from which
# ratio on do more picks hardly add anything?

# %% dial
from etadlite.viz.widgets import slider


def draw_cover(ratio):
    at = random_pick(Draws([run.seed]), None, proposal_count(len(proposals), ratio))
    cover = tiou(proposals[at][:, None], proposals).amax(dim=0)  # [P]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axis = figure.subplots()
    image = draw_map(axis, cover)
    axis.plot(proposals[at, 0], durations[at], ".", color=COLOURS[3], markersize=4)
    title = f"{len(at)} picked; the median proposal has one of tIoU {cover.median():.2f}"
    axis.set(xlabel="start (cell)", ylabel="duration (cells)", title=title)
    figure.colorbar(image, label="tIoU with nearest pick")
    return figure


alt = "Maps of the overlap of each proposal with its nearest pick, brighter as the ratio grows"
run.explore(slider(draw_cover, [0.01, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0], "ratio", alt), "dial")

# %% again-text [markdown]
# The sample is drawn **anew in every epoch**. One draw misses a proposal with chance 1 − r, and E
# draws miss it with chance (1 − r) to the power E. **Predict first:** after ten epochs at 6 %, has
# every proposal been trained?

# %% again
epochs, ratios = 10, (0.01, 0.06, 0.25)
for ratio in ratios:
    picks = proposal_count(len(proposals), ratio)
    seen = torch.zeros(len(proposals), dtype=torch.bool)
    for epoch in range(epochs):
        seen[random_pick(Draws([epoch]), None, picks)] = True
    expected, actual = 1 - (1 - picks / len(proposals)) ** epochs, float(seen.float().mean())
    print(f"{100 * ratio:3.0f} %: trained at least once, predicted {100 * expected:.0f} %", end="")
    print(f", measured {100 * actual:.0f} %")

# %% cost-text [markdown] tags=["slide"]
# ## 6 · What a step costs: predicted, then measured
#
# **Time, by counting.** A weight of a linear or convolutional layer is used once (one
# multiplication and one addition) for each *place* where the layer is applied. Layers that mix the
# video's features are applied at T cells; the heads that judge are applied at P proposals. Only the
# second kind shrinks with the ratio. Between the two stands RoIAlign: per proposal it sums up rows
# of a table.

# %% count
from etadlite.detector.roi import extend, interpolate
from etadlite.model.system import System

torch.manual_seed(run.seed)
system = System(settings).to(run.device)
detector, sizes = system.detector, settings.detector
at_proposals = re.compile(r"stages\.\d\.(iou|boundary|centre_width|(start|end)\.[2468])")
uses = {"cell": 0, "proposal": 0}
for name, weight in detector.named_parameters():
    if weight.dim() > 1:  # biases cost next to nothing
        uses["proposal" if at_proposals.match(name) else "cell"] += weight.numel()
samples = interpolate(extend(proposals), cells, sizes.roi_size, aligned=False).samples
bins = sizes.roi_size + sizes.roi_size // 4 * 2  # the whole, and its first and last quarter
roi = float(samples.float().mean()) * 2 * bins * sizes.hidden * len(detector.stages)
print(f"a cell costs {uses['cell']:,} multiply-adds")
print(f"a proposal costs {uses['proposal']:,} in layers and {roi:,.0f} in RoIAlign")


def predicted_work(picks):  # multiply-adds a video
    return cells * uses["cell"] + picks * (uses["proposal"] + roi)


# %% step-text [markdown]
# **Memory.** For the backward pass, *autograd* keeps intermediate results, the
# **[activations](glossary.md#activation)**: some for every cell, some for every proposal. So the
# bytes must lie on a straight line over P. We measure two small steps and extend the line.

# %% step
from etadlite.training.activations import SavedActivations
from etadlite.training.losses import detection_loss

batch = videos[: settings.training.batch_size]
actions, labels = (
    [v.actions.to(run.device) for v in batch],
    [v.labels.to(run.device) for v in batch],
)
inputs = torch.stack([v.inputs for v in batch]).to(run.device)  # [B, C, T]


def step(picks):
    draws = Draws(range(len(batch)), run.device)
    context = ProposalContext(draws, system.proposals, actions)
    picked = PROPOSAL_STRATEGIES["random"](context, picks)
    wanted = make_targets(actions, labels, picked, cells, classes)
    parts = detection_loss(detector(inputs, picked), wanted, settings.losses, draws)
    loss = sum(parts.values())
    loss.backward()
    detector.zero_grad()
    return loss.item()  # waits until a graphics card is done, too


# %% measure
def kept_bytes(picks):
    with SavedActivations(system, inputs) as saved:
        step(picks)
    return saved.peak_bytes


def seconds_of(picks):
    begun = time.perf_counter()
    step(picks)
    return time.perf_counter() - begun


few = [proposal_count(len(proposals), ratio) for ratio in (0.02, 0.1)]
small = [kept_bytes(picks) for picks in few]
slope = (small[1] - small[0]) / (few[1] - few[0])
print(f"a proposal keeps {slope / 2**10 / len(batch):.1f} KiB of activations a video")

# %% compare tags=["slide-more"]
every, rounds = len(proposals), 2 if run.profile == "smoke" else 9
picks = {ratio: proposal_count(every, ratio) for ratio in (0.01, 0.06, 0.25, 1.0)}
# The ratios take turns, so that whatever else the machine does meets all of them.
taken = [[seconds_of(count) for count in picks.values()] for _ in range(1 + rounds)][1:]
seconds = np.median(taken, axis=0)
costs = {
    ratio: {
        "time": (predicted_work(count) / predicted_work(every), float(spent / seconds[-1])),
        "memory": (small[0] + slope * (count - few[0]), kept_bytes(count)),
    }
    for (ratio, count), spent in zip(picks.items(), seconds, strict=True)
}
print("of all:  time predicted  measured   MiB predicted  measured   measured / predicted")
for ratio, cost in costs.items():
    (t, spent), (m, found) = cost["time"], cost["memory"]
    print(f"{100 * ratio:4.0f} % {t:16.2f} {spent:9.2f}", end="")
    print(f" {m / 2**20:15.1f} {found / 2**20:9.1f} {spent / t:9.2f} {found / m:5.2f}")
assert all(0.9 < found / m < 1.1 for m, found in (cost["memory"] for cost in costs.values()))

# %% compare-picture tags=["slide"]
figure = Figure(figsize=(11, 3.4), layout="constrained")
parts = (("time", "time of a step / all", 1), ("memory", "activations (MiB)", 2**20))
for axis, (part, title, unit) in zip(figure.subplots(1, 2), parts, strict=True):
    percent = [100 * ratio for ratio in costs]
    expected, actual = np.array([cost[part] for cost in costs.values()]).T / unit
    axis.plot(percent, expected, "--", color=COLOURS[1], label="predicted")
    axis.plot(percent, actual, "o", color=COLOURS[0], label="measured")
    axis.set(xlabel="ratio (% of the proposals)", ylabel=title, ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
run.show(figure, "cost", "Time and memory of a step over the ratio, predicted and measured")

# %% compare-see [markdown]
# **What to see.** Memory follows its line almost exactly. Time falls less than the count promises,
# because a step also pays for the losses, the targets and the bookkeeping of every call, which are
# no multiplications. And the backward pass leaves out proposals that the losses did not draw, in a
# sample as on the whole map: their gradient is zero.

# %% train-text [markdown] tags=["slide"]
# ## 7 · The experiment: a part against all
#
# Both trainings have the same videos, features and settings; only the ratio differs: 6 % or all.
# **[mAP](glossary.md#mAP)** (mean [average precision](glossary.md#average-precision), explained in
# 00) judges the [detections](glossary.md#detection) on the test videos: 100 is perfect. The seed
# decides the first weights, the order and the samples, and it alone moves mAP by a few points. So
# we train both with the same seeds and compare *pairs*. In the test, all proposals are judged.
#
# **Predict first:** how many points of mAP does one lose with 6 % instead of all? And how exactly
# can three seeds say so?

# %% train-one
from etadlite.runs.run import finished, run_training
from etadlite.training.report import read_report

plan = {  # seeds and epochs
    "smoke": (1, 1),
    "laptop": (3, 4),
    "full": (3, settings.training.epochs),
}
number_of_seeds, train_epochs = plan[run.profile]
kept = []


def train_with(ratio, seed):
    own = (f"sampling.proposal_ratio={ratio}", "training.test_every=0")
    own += (f"training.epochs={train_epochs}",)
    chosen = demo_settings("feature-based", run.data, seed, (*run.changes, *larger_map, *own))
    folder = run.out / f"{100 * ratio:g}_percent" / f"seed{seed}"
    if finished(chosen, folder):
        kept.append(str(folder.relative_to(run.out)))
    else:
        run_training(chosen, folder, progress=run.interactive)
    report = read_report(folder)
    print(f"{100 * ratio:3.0f} %, seed {seed}: average mAP {100 * report.average:.1f} %")
    return report


# %% train
seeds = range(run.seed, run.seed + number_of_seeds)
reports = {ratio: [train_with(ratio, s) for s in seeds] for ratio in (0.06, 1.0)}

# %% result tags=["slide-more"]
from etadlite.training.report import results_table as table

print(table({f"{100 * ratio:g} % of the proposals": found for ratio, found in reports.items()}))
maps = {ratio: np.array([100 * r.average for r in found]) for ratio, found in reports.items()}
lost = maps[1.0] - maps[0.06]  # points, a pair a seed
error = lost.std(ddof=1) / len(lost) ** 0.5 if len(lost) > 1 else np.nan
print(f"6 % cost {lost.mean():.1f} points of mAP, standard error {error:.1f}")
reach = 4.30 * error  # 95 % of Student's t with the 2 degrees of freedom of three pairs
print(f"95 % interval: {lost.mean() - reach:.1f} to {lost.mean() + reach:.1f} points")
assert np.isfinite(lost).all()

# %% result-see [markdown]
# **What to see** (in the `laptop` profile). The mean loss is small, but three seeds can't say much
# more. The printed interval contains the true mean loss in 95 of 100 such experiments: it is the
# mean ± 4.3 standard errors, because with only three pairs the standard error itself is uncertain.
# Its *upper* end is what these seeds can't exclude. Two earlier runs of this experiment had ten
# epochs and three seeds each. The seeds of the first run lost −1.0, −0.9 and 2.7 points. Those of
# the second run, on one thread, where sums are rounded in another order, lost 0.5, 1.0 and 2.0
# points. All six together lost 0.7 points with a standard error of 0.6: their interval goes from
# −0.9 to 2.3 points. So **this notebook claims**: 6 % may cost nothing, and a loss of more than 2.3
# points is unlikely. It does *not* show that 6 % are as good as all. To show that the loss is below
# one point, one would need many more seeds.
#
# In exchange, a step with 6 % takes a quarter of the time (0.27) and a seventh of the memory.
#
# Perhaps it is a *number* of proposals that must suffice, not a share. On a map of 64 cells and
# 1,552 proposals, where 6 % are 93 proposals, two seeds lost 2.1 points each. Here 6 % are 260
# proposals, and in the paper 495. To look further, change `own` above.

# %% own-text [markdown] tags=["slide"]
# ## 8 · Your own ETAD
#
# Here is the whole training step once more, made of the parts that you have written in 01 to 04.
# They come from `my_etad.py`; where a part is missing, the package's function stands in. The
# outputs that you see before you run the cells were made with the solutions.

# %% own-parts
matched_actions = run.mine("matched_actions")  # 01
roi_weights = run.mine("roi_weights")
balanced_bce = run.mine("balanced_bce")
three_passes = run.mine("three_passes")  # 02
stratified = run.mine("stratified")  # 03

# %% own-rois-text [markdown]
# **The detector** is that of 01: layers over time, then three stages that judge and refine. Its
# stages cut their RoIs out with your weights.


# %% own-rois
class MyRoIs:
    def __init__(self, x, segments, bins, *, aligned):  # x [B, C, T], segments [B, P, 2]
        near = segments.detach().nan_to_num().clamp(-x.shape[2], 2 * x.shape[2])
        weights = roi_weights(near.flatten(0, 1), bins, x.shape[2])  # [B * P, R, T]
        weights = weights.unflatten(0, near.shape[:2])
        self.rois = torch.einsum("bprt,bct->bpcr", weights, x)

    def linear(self, layer, first=0, bins=None):  # [B, P, H]
        last = None if bins is None else first + bins
        return layer(self.rois[..., first:last].flatten(2))


def my_system(chosen):
    torch.manual_seed(chosen.seed)
    system = System(chosen).train()
    for stage in system.detector.stages:
        stage.cut_out = MyRoIs
    return system


# %% own-loss-text [markdown]
# **The loss** of pass 2 finds each proposal's action with your matching, and its boundary part is
# yours.


# %% own-loss
def my_loss(system, features, proposals, batch, draws):  # features [B, C, T]
    chosen_actions, cells = batch.actions, features.shape[2]
    targets = make_targets(chosen_actions, batch.labels, proposals, cells, classes)
    pairs = zip(chosen_actions, proposals, strict=True)
    targets = targets._replace(matched=torch.stack([matched_actions(a, p) for a, p in pairs]))
    output = system.detector(features, proposals)
    losses = detection_loss(output, targets, settings.losses, draws)
    sides = zip(output.boundaries.unbind(1), targets.boundaries.unbind(1), strict=True)
    losses["boundary"] = sum(balanced_bce(said, wanted) for said, wanted in sides)
    return sum(losses.values())


# %% own-chances-text [markdown]
# **Weights.** A picked [snippet](glossary.md#snippet) counts by 1 / its chance, which we count over
# many draws as in 03.

# %% own-chances
from etadlite.sampling.snippets import SnippetContext, snippet_count


def counted_chances(snippets, n, draws=20_000):  # [N]
    drawn = stratified(SnippetContext(Draws(range(draws)), snippets), n)
    return drawn.flatten().bincount(minlength=snippets) / draws


# %% own-step-text [markdown]
# **The step.** Proposals are sampled by your strategy, and snippets by your stratified sampler.
# Then come your three passes. The snippets of all videos of the batch form one long row.


# %% own-step
def my_step(system, batch, optimizer, chosen, chances):
    draws, (B, N) = Draws(batch.seeds), batch.inputs.shape[:2]
    context = ProposalContext(draws, system.proposals, batch.actions)
    number = proposal_count(len(system.proposals), chosen.sampling.proposal_ratio)
    picked = with_positives(context, number)  # [B, P, 2]
    rows = stratified(SnippetContext(draws, N), snippet_count(N, chosen.sampling.snippet_ratio))

    def loss_of(features):  # [B * N, C]
        return my_loss(system, features.unflatten(0, (B, N)).mT, picked, batch, draws)

    optimizer.zero_grad()
    every = (rows + N * torch.arange(B)[:, None]).flatten()  # in the long row
    snippets, weights = batch.inputs.flatten(0, 1), 1 / chances[rows].flatten()
    loss = three_passes(system.encoder.encoder, snippets, loss_of, 16, every, weights)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, chosen.training.clip_norm)
    optimizer.step()
    return float(loss)


# %% own-train-text [markdown] tags=["slide"]
# **The training** is a loop over such steps, with the package's optimiser and learning rates. We
# train the package's ETAD beside it, with the same settings, videos and seeds: T = 64, 30 % of the
# snippets, 12 % of the proposals, and few epochs. **Predict first:** by how much will the two
# differ?

# %% own-train
from etadlite.runs.testing import test_system
from etadlite.training.loop import learning_rate_factor, loader, make_optimizer

few_seeds, few_epochs = {"smoke": (1, 1), "laptop": (3, 3), "full": (3, 2)}[run.profile]


def end_to_end(seed):
    own = ["device=cpu", f"training.epochs={few_epochs}", "training.test_every=0"]
    own += ["sampling.proposal_ratio=0.12", "sampling.rescale=true"]
    own += ["detector.hidden=64", "detector.head=32"]
    return demo_settings("end to end, 30 % of the snippets", run.data, seed, [*run.changes, *own])


# %% own-keep-text [markdown]
# **Interruptions.** The loop saves its state after each epoch, so that a run that was interrupted
# goes on from there. The file's name depends on the settings, on `my_etad.py` and on the cells
# above: whoever changes one of them starts anew.


# %% own-keep
import inspect
import zlib

from etadlite.base.files import written_whole


def state_file(chosen):
    parts = [my_step, my_loss, my_system, MyRoIs.__init__, MyRoIs.linear]
    text = chosen.model_dump_json() + "".join(map(inspect.getsource, parts))
    text += run.own.read_text(encoding="utf-8") if run.own.exists() else ""
    return run.out / "my_etad" / f"seed{chosen.seed}_{zlib.crc32(text.encode()):08x}.pt"


# %% own-loop
def my_training(chosen):
    system = my_system(chosen)
    optimizer = make_optimizer(system, chosen.training)
    batches = loader(open_split(chosen, training=True), chosen, training=True)
    N, share = chosen.data.snippets, chosen.sampling.snippet_ratio
    chances = counted_chances(N, snippet_count(N, share))
    file, done = state_file(chosen), 0  # epochs
    if file.exists():
        done, weights, rates = torch.load(file)
        system.load_state_dict(weights)
        optimizer.load_state_dict(rates)
        print(f"seed {chosen.seed}: {done} epochs were done before")
    for epoch in range(done, few_epochs):
        batches.batch_sampler.epoch = epoch  # another order
        for number, batch in enumerate(batches):
            now = epoch + (number + 0.5) / len(batches)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_factor(chosen.training, now) * group["initial_lr"]
            loss = my_step(system, batch, optimizer, chosen, chances)
        print(f"seed {chosen.seed}, epoch {epoch + 1} of {few_epochs}: last loss {loss:.1f}")
        with written_whole(file) as draft:
            torch.save((epoch + 1, system.state_dict(), optimizer.state_dict()), draft)
    return test_system(system.eval(), chosen, open_split(chosen, training=False), progress=False)[1]


# %% own-run
both = {"my ETAD": [], "the package's": []}
for seed in range(run.seed, run.seed + few_seeds):
    chosen = end_to_end(seed)
    both["my ETAD"].append(100 * my_training(chosen).average)
    folder = run.out / "end_to_end" / f"seed{seed}"
    if finished(chosen, folder):
        kept.append(str(folder.relative_to(run.out)))
    else:
        run_training(chosen, folder, progress=run.interactive)
    both["the package's"].append(100 * read_report(folder).average)
for name, values in both.items():
    print(f"{name:14} mean {np.mean(values):.1f} of", *(f"{value:.1f}" for value in values))
apart = np.subtract(*both.values())
if few_seeds > 1:
    reach = 4.30 * apart.std(ddof=1) / few_seeds**0.5
    print(f"difference {apart.mean():.1f} ± {reach:.1f} points of mAP (95 %)")

# %% own-picture tags=["slide-more"]
figure = Figure(figsize=(8, 2.6), layout="constrained")
axis = figure.subplots()
for row, values in enumerate(both.values()):
    axis.plot(values, [row] * len(values), "o", color=COLOURS[row], markersize=9)
    axis.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=COLOURS[row], linewidth=3)
axis.set(yticks=[0, 1], yticklabels=list(both), ylim=(-0.6, 1.6), xlim=(0, None))
axis.set_xlabel("average mAP (%); a dot is a seed, the line their mean")
axis.spines[["top", "right"]].set_visible(False)
run.show(figure, "own", "Average mAP of my ETAD and of the package's, a dot for each seed")

# %% own-see [markdown]
# **What to see** (in the `laptop` profile). After so few epochs, one seed can differ from the next
# by ten points and more, for your ETAD as for the package's. So look at the printed interval:
# unless it leaves out zero, these seeds show no difference between the two. The parts themselves do
# the same work: with the same samplers, the losses of both agree step by step, which a test of this
# project checks. Only the samplers differ: yours are stratified, and never without a positive.
#
# This is the whole method. What the package adds is speed, more than one process, and many
# settings.

# %% exercises [markdown]
# ## 9 · Two more exercises

# %% exercise-2-text [markdown]
# ### Exercise 2 · How many epochs until all were seen? (easy, 5 minutes)
#
# Every epoch draws a share `ratio` (between 0 and 1) of the proposals anew, at random. Return the
# smallest number of epochs after which a proposal was drawn at least once with a chance of at least
# `share`. For a ratio of 0.06 and a share of 0.5 it is 12.
#
# <details><summary>Hint</summary>
#
# Section 5: after E epochs a proposal was missed by all of them with chance (1 − r) to the power E.
# Try E = 1, 2, 3, ..., or solve for E with logarithms and round up.
#
# </details>


# %% exercise-2
def epochs_until(ratio, share):
    # BEGIN SOLUTION
    epochs = 1
    while 1 - (1 - ratio) ** epochs < share:
        epochs += 1
    return epochs
    # END SOLUTION


check("epochs_until", epochs_until)

# %% exercise-3-text [markdown]
# ### Exercise 3 · Chances that balance the scales (medium, 10 minutes)
#
# `durations` [P] are whole numbers of cells, as floats. Return the chance [P] with which each proposal should
# be drawn, so that every octave that occurs (1, 2 to 3, 4 to 7, ...) is drawn equally often, and
# all proposals of one octave alike. The chances add up to 1.
#
# <details><summary>Hint</summary>
#
# `durations.log2().floor().long()` numbers the octaves, and `bincount` tells how many proposals
# each has. The chance is 1 / (size of the own octave), divided by the number of octaves that occur.
#
# </details>


# %% exercise-3
def scale_chances(durations):
    # BEGIN SOLUTION
    octave = (durations + 0.5).log2().long()
    size = octave.bincount()
    return 1 / size[octave] / (size > 0).sum()
    # END SOLUTION


check("scale_chances", scale_chances)

# %% solution-3-note [markdown] tags=["solution"]
# `torch.multinomial(chances, count)` draws with them. The half cell keeps the logarithm away from
# whole numbers, where rounding could go either way. It changes no octave, because durations are
# whole numbers.

# %% full-run [markdown]
# ## 10 · The full run
#
# These commands run this notebook, the second one on the large data set:
#
# ```
# etadlite notebook 04_proposal_sampling -p profile laptop
# etadlite notebook 04_proposal_sampling -p profile full --out runs/04_large
# ```
#
# This command trains all seven strategies end to end, at four ratios and with three seeds, and
# writes a table and a picture:
#
# ```
# etadlite ablate proposals
# ```
#
# Finished trainings are kept, and the same command continues where it was stopped. Expect the
# strategies to lie within a few points of each other; another seed moves mAP by as much.

# %% metrics
results = {f"{100 * ratio:g} %, mAP (%)": round(m.mean(), 1) for ratio, m in maps.items()}
results |= {f"{name}, mAP (%)": round(np.mean(values), 1) for name, values in both.items()}
run.finish(
    results,
    kept=kept,
    maps={str(ratio): values.tolist() for ratio, values in maps.items()},
    points_lost=lost.tolist(),
    end_to_end=both,
    shares=dict(zip(names, shares, strict=True)),
    step={str(ratio): cost for ratio, cost in costs.items()},
)
print("written to out_dir: metrics.json, pictures, and a folder a training")

# %% summary [markdown] tags=["slide"]
# ## Summary
#
# - All segments up to D cells form a map; hardly any of them fit an action well.
# - Neighbours on the map see the same and should say the same: a thin sample holds most of it, more
#   so for long proposals than for short ones.
# - A sample is cheaper in proportion, until the fixed part of the step dominates.
# - 6 % of this map cost about one point of mAP against all of it, or nothing; so few seeds can't
#   exclude a loss of two points. How small a share suffices may depend on how large the map is.
# - Strategies change *what* is seen: positives, short proposals, less repetition.

# %% limits [markdown] tags=["slide-more"]
# ## Limits
#
# There were few seeds, stick figures, and a map of 4,340 proposals with short actions. On
# ActivityNet the map is twice as large, and actions are longer: neighbours there should be even
# more alike. The strategies were compared by what they pick, not by what they reach; that is the
# study of section 10.

# %% references [markdown]
# ## References
#
# - S. Liu et al., *ETAD: Training Action Detection End to End on a Laptop*, CVPR Workshops 2023,
#   [arXiv:2205.07134](https://arxiv.org/abs/2205.07134): section 3.5, proposal sampling.
# - T. Lin et al., *BMN: Boundary-Matching Network for Temporal Action Proposal Generation*, ICCV
#   2019: the map of start and duration.
# - J. Pang et al., *Libra R-CNN*, CVPR 2019: IoU-balanced sampling in images.
# - A. Kulesza, B. Taskar, *Determinantal Point Processes for Machine Learning*, 2012.

# %% questions-text [markdown]
# ## Questions
#
# Five questions have choices, and each choice is explained. Three questions are to be answered in
# words; write your answer before you unfold what counts. In JupyterLab, run the cell and press the
# buttons.

# %% questions tags=["alone"]
from etadlite.course.quiz import show_quiz

show_quiz("04_proposal_sampling")
