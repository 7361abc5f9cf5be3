# %% card [markdown] tags=["slide"]
# # 4 · Proposal sampling: must every segment be trained?
#
# **The question.** A detector judges *proposals*: all segments of a video that could be an action.
# A video cut into T cells of time has T (T + 1) / 2 of them; for T = 128 that is 8,256, for every
# video, in every training step. ETAD trains on 6 % of them. What does this save, what does it cost,
# and which 6 % should it be?
#
# **You will** draw the map of all proposals, see how alike neighbours on it are, write six ways to
# choose from it, predict what a choice costs, and test by training whether 6 % are enough.
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
# Our videos show a stick figure that acts now and then. A video is cut into T = 128 equal **cells**
# of time, as in the paper and twice as finely as in the other notebooks, and a frozen *encoder* has
# turned each cell into a **feature**, C = 48 numbers. To keep the time of a training, the
# detector's layers are half as wide.

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
# How well does a proposal fit an action? **Temporal IoU (tIoU)**: the time they share, divided by
# the time that they cover together. It is 1 for a perfect fit, 0 where they do not touch. For each
# proposal, the action of highest tIoU counts.

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
#
# **Predict first.** A proposal is called *positive* if its tIoU is high, say above 0.7. Which share
# of the map is positive? And above 0.9?

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

# %% teach-text [markdown] tags=["slide"]
# **What to see.** Most proposals touch an action. But only 6.6 % of them are positive, and only
# 0.58 % are nearly perfect: the map is badly *unbalanced*. Trained on all proposals alike, a
# detector that never says "above 0.9" would be right for 99.4 % of them.
#
# ## 2 · What a proposal teaches
#
# From each proposal that it is given, the detector learns three things: its tIoU (as a number, and
# whether it is above 0.9), how to move its ends to fit the action (*offsets*, in units of its
# duration), and whether its ends are really ends of an action. `stage_targets` computes what the
# detector should say. Here we ask it about a perfect proposal, about one that starts two cells
# late, and about one far away:

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
# Only good proposals teach offsets: those above tIoU 0.7 in the first of three **stages** (each
# stage judges the segments that the stage before has moved). Against the imbalance, the losses draw
# **as many negatives as there are positives** and leave out the rest. So of a full map, how much is
# used?

# %% balance
from etadlite.base.draws import Draws

positive = fits > 0.9
drawn = draw_as_many(~positive, positive, Draws(range(len(videos))), guarded=True)
used = (positive | drawn).float().sum(dim=1)
print(f"positives a video {positive.float().sum(dim=1).mean():.1f}, drawn negatives", end=" ")
print(f"{drawn.float().sum(dim=1).mean():.1f}: used {used.mean():.1f} of {len(proposals):,}")

# %% alike-text [markdown] tags=["slide"]
# **What to see.** The loss for "is it above 0.9?" reads a handful of proposals, and the detector
# has worked on all of them. This is a first hint that sampling *before* the detector may cost
# little accuracy. (Other parts of the loss read more proposals, but none reads all.)
#
# ## 3 · Neighbours say the same
#
# Here is a second hint. Move a proposal by one cell: it looks at nearly the same features, and its
# tIoU is nearly the same. How quickly does that likeness fade? We move all proposals of a duration
# by k cells and correlate before with after: the target (tIoU), and the detector's input. That is
# what **RoIAlign** cuts out of the features: a proposal's part, resampled to 16 bins.

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
# **What to see.** *Target:* a long proposal, moved by one cell, should say almost what it said
# before; one of two cells should soon say something else. (At 24 cells the curve ends below
# zero: where one fits an action, its neighbour 16 cells on does not.) *Input:* at every duration,
# it falls quickly over two cells, then slowly towards what two places of one video share anyway,
# such as light and clothes.
#
# So a thin sample holds most of what the map has to say about *long* proposals, and less about
# *short* ones.

# %% strategies-text [markdown] tags=["slide"]
# ## 4 · Seven ways to choose
#
# A **strategy** is a function `(context, count) -> proposals [B, count, 2]`, and picks no proposal
# twice. The context offers the P valid `proposals`, the true `actions`, and `draws`: a stream of
# random numbers for each video, so that what is drawn for a video never depends on its batch. Only
# **random** is the paper's method; the others are definitions of this project (grid and block stand
# in the paper's code, too).
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
# **Grid.** The picks form a regular lattice: every *step*-th duration, and equal strides along
# these rows. Two random numbers shift the lattice, so that every proposal has its turn sooner or
# later.


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
# is too small for its share, the other bins give the rest. **IoU-balanced** bins by tIoU, against
# the imbalance. **Scale-balanced** bins by *octaves* of duration (1 cell, 2 to 3, 4 to 7, ...), as
# short proposals have fewer neighbours that speak for them.


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
# **Farthest-point.** Pick one by one, each as far as can be from all picks so far. The distance is
# measured between points (centre, logarithm of the duration): doubling a duration counts the same
# for short and long. Choosing among random candidates, twice as many as picks, keeps it random.


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
# **k-DPP** (determinantal point process) is the random cousin of farthest-point: a set of k items
# is drawn with a chance proportional to the *determinant* of the matrix of their similarities. For
# two items of similarity *q* this is 1 − q²: two equal items are never drawn together, and two
# items that have nothing in common are drawn freely. Drawing needs eigenvectors, so we use the
# package's function.

# %% kdpp
for q in (0.0, 0.5, 0.9, 1.0):
    pair = torch.tensor([[1.0, q], [q, 1.0]])
    print(f"similarity {q:.1f}: determinant {torch.linalg.det(pair):.2f}")


def kdpp_pick(draws, actions, count):
    context = ProposalContext(draws, proposals, [actions])
    picked = PROPOSAL_STRATEGIES["kdpp"](context, count)[0]
    return (picked[:, None] == proposals).all(dim=2).long().argmax(dim=1)  # as indices


same("kdpp", kdpp_pick)

# %% picks-text [markdown] tags=["slide"]
# ## 5 · What each picks
#
# We take the same video and 6 % of its proposals. **Predict first:** which strategies will find the
# narrow peaks of short actions?

# %% picks tags=["slide-more"]
count = proposal_count(len(proposals), 0.06)
figure = Figure(figsize=(12, 5), layout="constrained")
axes = figure.subplots(2, 4, sharex=True, sharey=True)
for axis, (name, pick) in zip(axes.ravel(), mine.items(), strict=False):
    draw_map(axis, fits[shown], alpha=0.75)
    at = pick(Draws([run.seed]), videos[shown].actions, count)
    axis.plot(proposals[at, 0], durations[at], ".", color=COLOURS[3], markersize=5)
    axis.set_title(name)
axes[1, 3].axis("off")
axes[1, 3].text(
    0, 0.5, f"{count} of {len(proposals):,}\nproposals each", transform=axes[1, 3].transAxes
)
figure.supxlabel("start (cell)")
figure.supylabel("duration (cells)")
run.show(figure, "picks", "Seven small maps of proposals with the picks of each strategy as dots")

# %% picks-see [markdown]
# **What to see.** *Random* leaves gaps and clumps, *grid* leaves none, and *block* sees only one
# corner. *IoU-balanced* crowds on the peaks, because it knows the true actions. *Scale-balanced*
# and *farthest* turn towards the short durations at the bottom. *k-DPP* looks random, with fewer
# picks that are nearly equal. Here are the numbers over all training videos:


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
# **One dial: the ratio.** How well does a random sample represent the map? For every proposal, we
# take the tIoU with its nearest *picked* proposal. Turn the dial: from which ratio on do more picks
# hardly add anything?

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
# **Memory.** For the backward pass, *autograd* keeps intermediate results, the **activations**:
# some for every cell, some for every proposal. So the bytes must lie on a straight line over P. We
# measure two small steps and extend the line.

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
# no multiplications.

# %% train-text [markdown] tags=["slide"]
# ## 7 · The experiment: a part against all
#
# Both trainings have the same videos, features and settings; only the ratio differs: 6 % or all.
# **mAP** (mean average precision, explained in 00) judges the detections on the test videos: 100 is
# perfect. The seed decides the first weights, the order and the samples, and it alone moves mAP by
# a few points. So we train both with the same seeds and compare *pairs*. In the test, all proposals
# are judged.
#
# **Predict first:** how many points of mAP does one lose with 6 % instead of all? And how exactly
# can three seeds say so?

# %% train-one
from etadlite.runs.run import finished, run_training
from etadlite.training.report import read_report

plan = {  # seeds and epochs
    "smoke": (1, 1),
    "laptop": (3, 10),
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
# Its *upper* end is what these seeds can't exclude. When this was first written, three seeds lost
# −1.0, −0.9 and 2.7 points, and rounded otherwise, on one thread, 0.5, 1.0 and 2.0. All six
# together lost 0.7 points with a standard error of 0.6: their interval goes from −0.9 to 2.3
# points. So **this notebook claims**: 6 % may cost nothing, and a loss of more than 2.3 points is
# unlikely. It does *not* show that 6 % are as good as all. To show that the loss is below one
# point, one would need many more seeds.
#
# In exchange, a step with 6 % takes a quarter of the time (0.26) and a tenth of the memory.
#
# Perhaps it is a *number* of proposals that must suffice, not a share. On a map of 64 cells and
# 1,552 proposals, where 6 % are 93 proposals, two seeds lost 2.1 points each. Here 6 % are 260
# proposals, and in the paper 495. To look further, change `own` above.

# %% assignment-setup tags=["assignment"]
import torch

from etadlite.base.segments import tiou
from etadlite.course import check

# %% exercises [markdown]
# ## 8 · Exercises
#
# Replace the `...` by your code. The checker says whether it is right, and what is wrong if it is
# not. Nothing breaks if you leave an exercise out.
#
# ### 1 · How many epochs until all were seen? (easy, 5 minutes)
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


# %% exercise-1
def epochs_until(ratio, share):
    # BEGIN SOLUTION
    epochs = 1
    while 1 - (1 - ratio) ** epochs < share:
        epochs += 1
    return epochs
    # END SOLUTION


check("epochs_until", epochs_until)

# %% exercise-2-text [markdown]
# ### 2 · Chances that balance the scales (medium, 10 minutes)
#
# `durations` [P] are whole numbers of cells. Return the chance [P] with which each proposal should
# be drawn, so that every octave that occurs (1, 2 to 3, 4 to 7, ...) is drawn equally often, and
# all proposals of one octave alike. The chances add up to 1.
#
# <details><summary>Hint</summary>
#
# `durations.log2().floor().long()` numbers the octaves, and `bincount` tells how many proposals
# each has. The chance is 1 / (size of the own octave), divided by the number of octaves that occur.
#
# </details>


# %% exercise-2
def scale_chances(durations):
    # BEGIN SOLUTION
    octave = (durations + 0.5).log2().long()
    size = octave.bincount()
    return 1 / size[octave] / (size > 0).sum()
    # END SOLUTION


check("scale_chances", scale_chances)

# %% solution-2-note [markdown] tags=["solution"]
# `torch.multinomial(chances, count)` draws with them. The half cell keeps the logarithm away from
# whole numbers, where rounding could go either way. It changes no octave, because durations are
# whole numbers.

# %% exercise-3-text [markdown]
# ### 3 · Never without a positive (harder, 15 minutes)
#
# A random 6 % may miss a short action altogether. Write a strategy `(context, count) -> [B, count,
# 2]` that picks at random, none twice, but always includes, for every action of a video, the
# proposal of highest tIoU. A video may have no action (`actions` is [0, 2]).
#
# <details><summary>Hint</summary>
#
# `context.draws.rand(P)` gives random numbers [B, P], of which *random* takes the largest `count`.
# Give the proposals that must be in a number above 1 first.
#
# </details>


# %% exercise-3
def with_positives(context, count):
    # BEGIN SOLUTION
    luck = context.draws.rand(len(context.proposals))  # [B, P]
    for own, actions in zip(luck, context.actions, strict=True):
        if len(actions):
            own[tiou(actions[:, None], context.proposals).argmax(dim=1)] = 2
    return context.proposals[luck.topk(count, dim=1).indices]
    # END SOLUTION


if check("with_positives", with_positives):
    context = ProposalContext(Draws([0]), proposals, [videos[shown].actions])
    picked = torch.as_tensor(np.asarray(with_positives(context, count)))
    print(f"best tIoU in the sample: {tiou(videos[shown].actions[:, None], picked[0]).amax(1)}")

# %% full-run [markdown]
# ## 9 · The full run
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
run.finish(
    results,
    kept=kept,
    maps={str(ratio): values.tolist() for ratio, values in maps.items()},
    points_lost=lost.tolist(),
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
#
# ## Limits
#
# There were few seeds, stick figures, and a map of 4,340 proposals with short actions. On
# ActivityNet the map is twice as large, and actions are longer: neighbours there should be even
# more alike. The strategies were compared by what they pick, not by what they reach; that is the
# study of section 9.
#
# ## References
#
# - S. Liu et al., *ETAD: Training Action Detection End to End on a Laptop*, CVPR Workshops 2023,
#   [arXiv:2205.07134](https://arxiv.org/abs/2205.07134): section 3.5, proposal sampling.
# - T. Lin et al., *BMN: Boundary-Matching Network for Temporal Action Proposal Generation*, ICCV
#   2019: the map of start and duration.
# - J. Pang et al., *Libra R-CNN*, CVPR 2019: IoU-balanced sampling in images.
# - A. Kulesza, B. Taskar, *Determinantal Point Processes for Machine Learning*, 2012.
