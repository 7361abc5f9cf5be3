# %% card [markdown] tags=["slide"]
# # 3 · Snippet gradient sampling: who gets to teach the encoder?
#
# **The question.** To train a video [encoder](glossary.md#encoder), every
# *[snippet](glossary.md#snippet)* (a short piece of the video) can be encoded a second time, with
# gradient. Neighbouring snippets look much the same, and the second encoding is the expensive one.
# **Which snippets should get a gradient, and what does it cost to leave the others out?**
#
# **You will** compute what each snippet would teach the encoder, treat a sampled gradient as a
# statistical *[estimator](glossary.md#estimator)*, predict its error by a formula, compare nine
# ways to choose, and write one of your own.
#
# **You need** notebook 02 (the three passes of [sequential
# encoding](glossary.md#sequential-encoding)), PyTorch, mean and [variance](glossary.md#variance).
#
# **What it takes**, from recorded runs:
#
# <!-- card -->
#
# **Shapes**: **B** videos, **N** snippets, **F** frames, **C** channels, **T** cells of time (here
# N, with one snippet per cell), **P** proposals.

# %% parameters-text [markdown]
# ### Parameters
#
# Run the notebook as it is, or change a value here first. `smoke` only proves that everything runs.
# Paths are relative to `notebooks/`.

# %% parameters tags=["parameters"]
# Parameters of this notebook; papermill can replace each of them.
profile = "laptop"  # smoke, laptop or full
data_root = "../data"  # where the generated videos are kept
out_dir = "../runs/03_snippet_gradient_sampling"  # pictures, metrics
seed = 0  # governs weights, sampling and order
device = "auto"  # auto, cpu, cuda or mps
interactive = "auto"  # bars and sliders: true, false or auto

# %% setup
import itertools
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
# ## 1 · A system that has begun to learn
#
# Of the three passes of a training step, this notebook is about the choice that is bright in the
# picture: the snippets that pass 3 encodes again.

# %% method tags=["slide-more"]
from etadlite.viz.method import draw_method

alt = "A training step of ETAD in three passes; bright: the snippets that are sampled for pass 3"
run.show(draw_method("snippets"), "method", alt)

# %% train-text [markdown]
# Our generated videos show a stick figure that acts now and then. A video is cut into N = 64 equal
# **[cells](glossary.md#cell)** of time; from the middle of each we take F = 8 frames, a
# **snippet**. The **encoder** turns a snippet into a **[feature](glossary.md#feature)** of C
# numbers; the **[detector](glossary.md#detector)** looks at all features and says which
# [actions](glossary.md#action) happen from when to when. Which gradients matter depends on what the
# system has already learned, so we train one for a few steps first.

# %% train
from etadlite.model.system import System
from etadlite.runs.demo import demo_settings
from etadlite.stickfigures.classes import CLASSES
from etadlite.stickfigures.dataset import make_dataset
from etadlite.training.loop import loader, make_optimizer, open_split
from etadlite.training.step import train_step

make_dataset(run.data, run.size, progress=run.interactive)  # those that exist are kept
settings = demo_settings("end to end, 30 % of the snippets", run.data, run.seed, run.changes)
data = open_split(settings, training=True)
system = System(settings).to(run.device).train()
optimizer = make_optimizer(system, settings.training)
steps = {"smoke": 6, "laptop": 40, "full": 200}[run.profile]
batches = loader(data, settings, training=True)
losses = []
while len(losses) < steps:
    for batch in itertools.islice(batches, steps - len(losses)):
        losses.append(train_step(system, batch, optimizer, settings)["loss"])
print(f"{steps} steps; loss {np.mean(losses[:3]):.1f} at first, {np.mean(losses[-3:]):.1f} at last")

# %% video-text [markdown]
# From here on the weights stay as they are, and we study **one video**: of the first few, we take
# the one whose actions come closest to filling half of its time. Everything is measured on the CPU,
# where it repeats exactly.

# %% video
system = system.cpu()
encoder, cells = system.encoder.encoder, settings.data.snippets
weights = list(encoder.parameters())


def covered(sample):
    return float(sample.actions.diff(dim=1).sum()) / cells  # [A, 2] start and end, in cells


some = [data[number] for number in range(3 if run.profile == "smoke" else 8)]
video = min(some, key=lambda sample: abs(covered(sample) - 0.5))
actions = video.actions
print(f"{video.name}: {len(actions)} actions fill {covered(video):.0%} of {video.duration:.0f} s")
print("snippets [N, 3, F, H, W]:", list(video.inputs.shape))

# %% feature-gradient-text [markdown]
# Sequential encoding has three passes: (1) encode all snippets without gradient; (2) run the
# detector and go back as far as the features, which gives the **[feature
# gradient](glossary.md#feature-gradient)**, exact and for *every* snippet; (3) encode snippets
# again, now with gradient, and push their part of the feature gradient into the encoder. Sampling
# happens in pass 3 only: **the detector never misses a snippet**. Passes 1 and 2:

# %% feature-gradient
from etadlite.base.draws import Draws
from etadlite.training.losses import detection_loss
from etadlite.training.targets import make_targets


def two_passes(sample):
    draws = Draws([sample.seed])  # a stream of random numbers a video, here of one
    proposals = system.sample_proposals(draws, [sample.actions])  # candidate segments
    targets = make_targets([sample.actions], [sample.labels], proposals, cells, len(CLASSES))
    features = system.encoder.encode(sample.inputs[None]).requires_grad_()
    output = system.detector(features, proposals)
    loss = sum(detection_loss(output, targets, settings.losses, draws).values())
    return features.detach(), torch.autograd.grad(loss, features)[0]


features, gradient = two_passes(video)
norms = gradient[0].norm(dim=0)  # [N]
print("features and their gradient [B, C, N]:", list(features.shape), list(gradient.shape))
print(f"norms from {norms.min():.2f} to {norms.max():.2f}")

# %% norms-text [markdown] tags=["slide"]
# **Predict first.** The *norm* (length) of a snippet's feature gradient says how strongly the loss
# wants its feature to change. Where will it be large: inside actions, at their ends, or between
# them?

# %% norms tags=["slide-more"]
count = 20  # of 64: a ratio of about 0.3
draw = Draws([run.seed]).rand(cells)  # [1, N] a random number for each snippet
picked = draw.topk(count).indices.sort().values  # those with the largest numbers
thumbs = video.inputs[2::5][:12, :, 4].permute(0, 2, 3, 1)  # every fifth snippet's middle frame
figure = Figure(figsize=(12, 3.6), layout="constrained")
top, axis = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.6))
for number, frame in enumerate(thumbs):
    top.imshow(frame, extent=(5 * number + 0.1, 5 * number + 4.9, 0, 1), aspect="auto")
top.set_axis_off()
colours = np.full(cells, COLOURS[7], dtype=object)
colours[picked[0].numpy()] = COLOURS[0]
axis.bar(np.arange(cells) + 0.5, norms, width=0.8, color=list(colours))
for begin, end in actions.tolist():
    axis.plot([begin, end], [-0.06 * norms.max()] * 2, color=COLOURS[3], linewidth=6)
axis.set(xlim=(0, cells), xlabel="cell (orange: a true action; blue: a random pick of 20)")
axis.set_ylabel("norm of the feature gradient")
axis.spines[["top", "right", "bottom"]].set_visible(False)
alt = "Norm of the feature gradient of each snippet; true actions below, 20 random picks in blue"
run.show(figure, "norms", alt)

# %% norms-see [markdown]
# **What to see.** The largest norm is several times the smallest, and neighbours often have similar
# norms. There is no simple rule: actions that the young system classifies wrongly, ends of actions,
# and background that it takes for an action all stand out. The grey snippets teach the encoder
# nothing in this step. In the next step, other snippets are drawn.

# %% own-text [markdown] tags=["slide"]
# ## 2 · What each snippet would teach
#
# A weight of the encoder feels every snippet, and by the chain rule the **full gradient** is a sum
# with one part per snippet:
#
# $$g = \sum_{i=1}^{N} g_i, \qquad g_i = \Big(\frac{\partial\, \text{feature}_i}{\partial\,
# \text{weights}}\Big)^{\!\top} d_i$$
#
# with $d_i$ the snippet's feature gradient. We compute every $g_i$ once: N backward passes through
# one snippet each. Then any sampled gradient is a weighted sum of these rows, so thousands of draws
# cost almost no time.


# %% own tags=["slide-more"]
def own_gradients(model, frames, gradient):  # [N, 3, F, H, W], [1, C, N]
    rows, parameters = [], list(model.parameters())
    for clip, push in zip(frames.split(1), gradient[0].T.split(1), strict=True):
        parts = torch.autograd.grad(model(clip), parameters, push)
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows).double()


own = own_gradients(encoder, video.inputs, gradient)  # [N, weights of the encoder]
full = own.sum(dim=0)
print("own gradients:", list(own.shape))
print(f"squared length of the sum {full.square().sum():,.0f}")
print(f"sum of the squared lengths {own.square().sum():,.0f}")

# %% own-see [markdown]
# **What to see.** If snippets pulled in unrelated directions, the two numbers would be about equal,
# and in the recorded run they nearly are. The smaller the first is, compared with the second, the
# more the snippets pull *against* each other ("more of this class here, less of it there"). Then
# the full gradient is a small difference of large parts, and it is hard to guess from a few of
# them.

# %% equal-text [markdown]
# **Is it the true gradient?** We compare with plain back-propagation and with the package's
# `SequentialEncoder` at [ratio](glossary.md#ratio) 1, *whatever the strategy*: where all are
# picked, there is nothing to choose. Twelve snippets will do, in double precision, so that rounding
# can't hide a mistake.

# %% equal
import copy

from etadlite.model import SequentialEncoder
from etadlite.sampling.snippets import (
    SNIPPET_STRATEGIES,
    SnippetContext,
    SnippetStrategy,
    snippet_count,
)

exact = copy.deepcopy(encoder).double()
few, push = video.inputs[:12], gradient[..., :12].double()
rows_of_few = own_gradients(exact, few, push)


def package_gradient(strategy, ratio, draws=None):
    module = SequentialEncoder(exact, 5, strategy, ratio, rescale=strategy.unbiased)
    encoded = module(few[None], draws, [actions])
    parts = torch.autograd.grad(encoded, list(exact.parameters()), push)
    return torch.cat([part.flatten() for part in parts])


# %% equal-all tags=["slide-more"]
plain = torch.autograd.grad(exact(few), list(exact.parameters()), push[0].T)
plain = torch.cat([part.flatten() for part in plain])
gradients = {"own": rows_of_few.sum(dim=0)}
gradients |= {name: package_gradient(s, 1.0) for name, s in SNIPPET_STRATEGIES.items()}
worst = max(float((found - plain).norm() / plain.norm()) for found in gradients.values())
print(f"{', '.join(gradients)}: at most {worst:.1e} of its length away")
assert worst < 1e-5, "at ratio 1 every strategy's gradient is the full gradient"

# %% toy-text [markdown] tags=["slide"]
# ## 3 · A sampled gradient is an estimator
#
# An **estimator** guesses a quantity from a sample. It is random: each draw gives another guess.
# Two numbers judge it:
#
# - **[bias](glossary.md#bias)**: how far the *average* guess lies from the truth;
# - **variance**: how far single guesses scatter around their average (mean squared distance).
#
# The **mean squared error** is bias² + variance. Take a small case: there are six numbers, two of
# them are drawn, and we want the sum of all six. All 15 pairs are equally likely.

# %% toy
values = torch.tensor([1.0, 2.0, 3.0, 5.0, 8.0, 11.0])
pairs = torch.tensor(list(itertools.combinations(range(6), 2)))  # [15, 2]
plain_sums = values[pairs].sum(dim=1)
scaled = 6 / 2 * plain_sums
print(f"truth {values.sum():g}")
print(f"average of the sums of two       {plain_sums.mean():g} = {2 / 6:.3f} of the truth")
print(f"average of N / n times these     {scaled.mean():g}")
n, spread = 2, values.var()  # var() divides by N - 1: S²
print(f"variance {scaled.var(correction=0):.2f}, by formula {6**2 / n * (1 - n / 6) * spread:.2f}")

# %% toy-picture tags=["slide"]
figure = Figure(figsize=(8, 2.6), layout="constrained")
axis = figure.subplots()
for row, guesses in enumerate((plain_sums, scaled)):
    seen = [float((guesses[:i] == value).sum()) for i, value in enumerate(guesses)]
    axis.scatter(guesses, [row + 0.12 * height for height in seen], color=COLOURS[row], s=30)
    axis.plot([guesses.mean()] * 2, [row - 0.2, row + 0.5], color=COLOURS[row], linewidth=3)
axis.axvline(float(values.sum()), linestyle="--", color="black")
axis.text(float(values.sum()) + 0.5, 1.6, "truth")
axis.set(yticks=[0, 1], yticklabels=["sum of two", "times N / n"], xlabel="guess", ylim=(-0.4, 1.9))
axis.spines[["top", "right"]].set_visible(False)
run.show(figure, "toy", "All 15 guesses without and with scaling, their means, and the truth")

# %% toy-see [markdown] tags=["slide-more"]
# **What to see.** A dot is a pair; the thick line is the average guess. The plain sum is
# **biased**: each number is in one third of the pairs, so on average it counts one third. Now
# weight each number by N / n, which is 1 / (its chance to be picked); this is its
# *[Horvitz-Thompson weight](glossary.md#Horvitz-Thompson-weight)*. Then it counts fully on average:
# there is no bias, but the guesses lie three times as far apart.
#
# The variance follows survey statistics: with f = n / N the share that is drawn and $S^2$ the
# variance of the values,
#
# $$\text{Var} = N^2\,\frac{1 - f}{n}\,S^2 .$$
#
# As nothing is drawn twice, (1 − f) makes it vanish when all are drawn: the *finite-population
# correction*. For vectors, add up over the components.

# %% random-text [markdown] tags=["slide"]
# ## 4 · Random snippets: predicted and measured
#
# The ETAD paper uses random snippets. This strategy drew the blue bars in the picture of section 1:
# each snippet gets a random number, and the largest numbers win. The package must pick the same
# from the same stream, and with `rescale=True` its `SequentialEncoder` must give our weighted sum.
# (The published code does not rescale; `rescale=False` is the default.)

# %% random
RANDOM = SNIPPET_STRATEGIES["random"]
context = SnippetContext(Draws([run.seed]), cells)
assert torch.equal(RANDOM.pick(context, count), picked)
print("picked [B, n]:", picked[0].tolist())
chance = RANDOM.inclusion(context, count)  # [B, N] the chance of each snippet to be picked
print(f"every snippet's chance: {float(chance[0, 0]):.3f} = {count} / {cells}")

four = RANDOM.pick(SnippetContext(Draws([run.seed]), 12), 4)[0]
by_hand = (rows_of_few[four] * 12 / 4).sum(dim=0)
module = package_gradient(RANDOM, 4 / 12, Draws([run.seed]))
difference = float((module - by_hand).norm() / by_hand.norm())
print(f"sequential encoder and weighted sum differ by {difference:.1e} of their length")
assert difference < 1e-5

# %% draws-text [markdown]
# Now we make thousands of draws. A draw is a row of N **weights**, which are 0 for the snippets
# that were not picked. Its error is $\sum_i (w_i - 1)\, g_i$, and the squared length of that needs
# only the N × N products $g_i \cdot g_j$. The unit from here on is the full gradient: an error of 1
# is as long as the gradient itself.
#
# **Predict first** three numbers that come next; leave `None` where you prefer to wait.

# %% guess
guess = {
    "scale": None,  # average of the sampled gradient without weights at ratio 0.3 (1: the full one)
    "halved": None,  # the ratio that halves the squared error of ratio 0.3 (0.6?)
    "grid": None,  # equal steps from a random start: their squared error, as a share of random's
}

# %% draws
products = own @ own.T  # [N, N]
length = products.sum()  # of the full gradient, squared


def context_of(number):  # `number` independent draws for the same video, as if a batch
    copies = [part.expand(number, -1, -1) for part in (features, gradient)]
    return SnippetContext(Draws(range(number)), cells, [actions] * number, *copies)


def weights_of(strategy, count, number=4000, by_chance=True):
    context = context_of(number)
    picked = strategy.pick(context, count)  # [R, n]
    weight = torch.full((number, cells), cells / count)  # as if all had the same chance
    if by_chance:
        weight = 1 / strategy.inclusion(context, count)
    return torch.zeros(number, cells).scatter(1, picked, weight.gather(1, picked)).double()


def squared_error(weight):  # [R, N] -> [R]
    return (((weight - 1) @ products) * (weight - 1)).sum(dim=1) / length


# %% scale tags=["slide"]
weight = weights_of(RANDOM, count)
along = weight @ (products.sum(dim=1) / length)  # each draw's share of the full gradient
shares = {"without weights": along * count / cells, "with weights 1 / chance": along}
figure = Figure(figsize=(8, 2.8), layout="constrained")
axis = figure.subplots()
for number, (name, share) in enumerate(shares.items()):
    label = f"{name}: average {share.mean():.2f}"
    axis.hist(share, bins=60, alpha=0.6, color=COLOURS[number], label=label)
    axis.axvline(float(share.mean()), color=COLOURS[number], linewidth=3)
    error = float(share.std()) / len(share) ** 0.5  # of the average
    wanted = (count / cells, 1)[number]
    print(f"{label} ± {error:.2f}, expected {wanted:.2f}")
    assert abs(float(share.mean()) - wanted) < 5 * error
axis.set(xlabel="part along the full gradient (1: as long as it)", ylabel="draws")
axis.spines[["top", "right"]].set_visible(False)
figure.legend(loc="outside upper center", ncols=2, frameon=False)
run.show(figure, "scale", "Histograms of sampled gradients with and without weights")

# %% scale-see [markdown] tags=["slide-more"]
# **What to see.** Without weights, the average is the ratio times the full gradient, as in the toy.
# With 1 / chance it is the full gradient: the estimate is **[unbiased](glossary.md#unbiased)**,
# though single draws scatter widely.
#
# Does the missing factor matter? It is the same for all snippets, so on average the *direction* is
# right and only the length is too small. That acts like a smaller learning rate of the encoder, and
# Adam, which divides by the gradient's own size, undoes it. It is different where the chances
# *differ* between snippets: then some snippets count more than others, the direction itself is
# biased, and no learning rate and no Adam repairs that.

# %% dial-text [markdown] tags=["slide"]
# **One dial: the ratio.** Applied to vectors, the formula predicts the error at every ratio from
# the rows alone.

# %% dial
spread = (own - own.mean(dim=0)).square().sum() / (cells - 1)  # S²


def predicted_error(n):  # squared, in units of the full gradient's squared length
    return float(cells**2 * (1 - n / cells) / n * spread / length)


ratios = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0]
counts = [snippet_count(cells, ratio) for ratio in ratios]  # rounded up
predicted = [predicted_error(n) for n in counts]
measured = [float(squared_error(weights_of(RANDOM, n)).mean()) for n in counts]
for ratio, n, expected, found in zip(ratios, counts, predicted, measured, strict=True):
    line = f"squared error predicted {expected:7.3f}, measured {found:7.3f}"
    print(f"ratio {ratio:4.2f}, {n:2d} of {cells}: {line}")
off = [abs(m / p - 1) for m, p in zip(measured[:-1], predicted[:-1], strict=True)]
assert max(off) < 0.15, "the error falls with the ratio as predicted, within 15 %"
assert measured[-1] < 1e-9, "and it is 0 when all snippets are picked"
print(f"largest deviation: {max(off):.1%}")

# %% dial-picture tags=["slide"]
figure = Figure(figsize=(8, 3.8), layout="constrained")
axis = figure.subplots()
every, taken = np.arange(2, cells + 1), np.divide(counts, cells)
share = every / cells
curve = np.array([predicted_error(n) for n in every])
axis.plot(share, curve**0.5, color=COLOURS[0], label="with weights, predicted")
axis.plot(taken, np.sqrt(measured), "o", color=COLOURS[0], label="with weights, measured")
without = [float(squared_error(weights_of(RANDOM, n) * n / cells).mean()) for n in counts]
both = np.sqrt((1 - share) ** 2 + share**2 * curve)  # bias² + variance
axis.plot(share, both, "--", color=COLOURS[1], label="without weights, predicted")
axis.plot(taken, np.sqrt(without), "s", color=COLOURS[1], label="without weights, measured")
axis.set(xlabel="ratio: share of the snippets with a gradient", ylim=(0, None))
axis.set_ylabel("error (lengths of the full gradient)")
axis.grid(alpha=0.3)
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
run.show(figure, "dial", "Error of the sampled gradient over the ratio, predicted and measured")

# %% dial-see [markdown] tags=["slide-more"]
# **What to see.** The dots lie on the lines: a formula gives the error of sampling. The error falls
# steeply at first and reaches exactly 0 at ratio 1.
#
# The dashed line, without weights, looks better, but the reason is wrong: it multiplies the same
# noisy guess by f, and a shorter arrow has a shorter error. Its variance is f² times as large, and
# for this it has a bias of length, (1 − f)². By the last section such a bias of length alone does
# no harm, and Adam takes it away again. But Adam then also stretches the noise to its old size, so
# nothing was gained. To compare strategies fairly, all guesses need the same length on average. So
# from here on we compare *with* weights.

# %% grid-text [markdown] tags=["slide"]
# ## 5 · Other ways to choose
#
# **Neighbours are alike**, so it is a waste to pick two of them. A **[grid](glossary.md#grid)**
# takes equal steps from a random start. A **[block](glossary.md#block)** does the opposite: it
# takes neighbours only, from a random start on, and continues at the beginning where it runs over
# the end. In both, each snippet has the chance n / N, as in random sampling. The package must agree
# with ours:


# %% grid tags=["slide-more"]
def my_grid(u, n):  # u: one random number in 0..1
    return ((torch.arange(n) + u.double()) * cells / n).long()


def my_block(u, n):
    return ((u * cells).long() + torch.arange(n)).remainder(cells).sort().values


for name, mine in (("grid", my_grid), ("block", my_block)):
    u = Draws([run.seed]).rand(1)[0]
    theirs = SNIPPET_STRATEGIES[name].pick(context_of(1)._replace(draws=Draws([run.seed])), count)
    assert torch.equal(mine(u, count), theirs[0])
    print(f"{name:5}", theirs[0].tolist())

# %% assignment-setup tags=["assignment"]
import torch

from etadlite.course import check

# %% exercise-1-text [markdown]
# ### Exercise 1 · A stratified sampler (harder, 15 minutes)
#
# A grid moves all its picks by the same shift. A **stratified** sampler cuts the video into n
# stretches (*strata*) and draws one snippet in each, independently. Stratum i holds the snippets
# from ⌊i N / n⌋ up to, not including, ⌊(i + 1) N / n⌋.
#
# A sampler is a function of a context and of n. The context says how many `snippets` N a video has,
# and `context.draws` holds a stream of random numbers for each of the B videos:
# `context.draws.rand(n)` gives numbers in 0..1, [B, n], row i from the stream of video i. Use no
# other random numbers. Return ascending indices [B, n]. The answer is saved in `my_etad.py`; 04
# trains with it.
#
# <details><summary>Hint</summary>
#
# All n + 1 borders are `torch.arange(n + 1) * N // n`; `diff()` gives the widths. A border plus a
# random share of the width, rounded down, lies in the stratum.
#
# </details>


# %% exercise-1
def stratified(context, n):
    # BEGIN SOLUTION
    borders = torch.arange(n + 1) * context.snippets // n
    return borders[:-1] + (context.draws.rand(n) * borders.diff()).long()
    # END SOLUTION


check("stratified", stratified)
stratified = run.mine("stratified", stratified)

# %% solution-1-note [markdown] tags=["solution"]
# Two picks can still be neighbours across a border. In return, it can't fall in step with a rhythm
# of the video, as a grid can.

# %% chances-text [markdown]
# What weight does a pick of this sampler need? One over its chance. In a stratum of 3 snippets the
# chance is 1/3, and in one of 4 it is 1/4. (If the package's grid stands in, every chance is n /
# N.) One can also *count*: the chance is the share of many draws that pick the snippet.


# %% chances
def counted_chances(sampler, n, draws=20_000):
    drawn = sampler(SnippetContext(Draws(range(draws)), cells), n)  # [draws, n]
    return drawn.flatten().bincount(minlength=cells) / draws  # [N]


widths = (torch.arange(count + 1) * cells // count).diff()
counted = counted_chances(stratified, count)
of_strata, of_a_grid = (1 / widths).repeat_interleave(widths), torch.full((cells,), count / cells)
apart = min(float((counted - chance).abs().max()) for chance in (of_strata, of_a_grid))
print(f"counted chances from {counted.min():.2f} to {counted.max():.2f}, sum {counted.sum():.1f}")
print(f"largest difference to the formula: {apart:.3f}")
assert apart < 0.02

# %% farthest-text [markdown]
# Grid, block and strata go by time. **[Farthest-point](glossary.md#farthest-point) sampling** goes
# by the features: start anywhere, then always take the snippet whose nearest pick so far is
# farthest away.


# %% farthest
def my_farthest(points, first, n):  # points [N, C]
    chosen = [first]
    nearest = (points - points[first]).square().sum(dim=1)  # distance to the nearest pick
    for _ in range(n - 1):
        nearest[chosen] = -1  # never again
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(dim=1))
    return torch.tensor(chosen).sort().values


first = int(Draws([run.seed]).rand()[0] * cells)
theirs = SNIPPET_STRATEGIES["farthest"].pick(context_of(1)._replace(draws=Draws([run.seed])), count)
assert torch.equal(my_farthest(features[0].T, first, count), theirs[0])
print("farthest", theirs[0].tolist())

# %% dpp-text [markdown] tags=["slide"]
# A **[k-DPP](glossary.md#k-DPP)** (determinantal point process for sets of k) is the random
# relative of farthest points: *every* set of k has a chance, but sets of similar items have a small
# one. Write the items' similarities into a matrix L, with ones on the diagonal. Then
#
# $$P(\text{set}) \propto \det L_\text{set}, \qquad \text{for a pair: } \det \begin{pmatrix} 1 & s
# \\ s & 1 \end{pmatrix} = 1 - s^2 :$$
#
# 0 for two equal items, and 1 for two items that have nothing in common. For six snippets, three of
# them neighbours, we can enumerate all 15 pairs and compare with how often the package draws them.

# %% dpp
from etadlite.sampling.dpp import gaussian_similarity, sample_kdpp

begin = int(actions[0, 0])
six = [(begin + step) % cells for step in (0, 1, 2, 16, 32, 48)]
likeness = gaussian_similarity(features[:, :, six].mT)[0].double()  # [6, 6] exp(-distance² / mean)
sets = torch.tensor(list(itertools.combinations(range(6), 2)))  # [15, 2]
volumes = torch.stack([torch.det(likeness[s][:, s]) for s in sets])
chances = volumes / volumes.sum()

stream = torch.Generator().manual_seed(run.seed)
draw = torch.rand(4000, 2, 6, generator=stream)
drawn = sample_kdpp(likeness.expand(4000, -1, -1), torch.full((4000,), 2), draw)  # [R, 6]
often = torch.stack([drawn[:, s].all(dim=1).double().mean() for s in sets])
print(f"chances from {chances.min():.3f} to {chances.max():.3f}")
print(f"largest difference to the frequency: {(often - chances).abs().max():.3f}")
assert (often - chances).abs().max() < 0.03

# %% dpp-picture tags=["slide"]
figure = Figure(figsize=(12, 3.4), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=(1, 2.6))
image = left.imshow(likeness, cmap="cividis", vmin=0, vmax=1)
left.set(xticks=range(6), yticks=range(6), xticklabels=six, yticklabels=six)
left.set(xlabel="cell", ylabel="cell", title="similarity")
figure.colorbar(image, ax=left)
order = chances.argsort()
right.bar(np.arange(15), often[order], color=COLOURS[7], label="drawn")
right.plot(chances[order], "o", color=COLOURS[0], label="by determinants")
names = [f"{six[a]}+{six[b]}" for a, b in sets[order].tolist()]
right.set(xticks=range(15), ylabel="share of the draws", xlabel="pair of cells")
right.set_xticklabels(names, rotation=45)
right.axhline(1 / 15, linestyle="--", color="black", linewidth=1, label="random pairs: 1 / 15")
right.spines[["top", "right"]].set_visible(False)
right.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
run.show(figure, "dpp", "Similarity of six snippets, and how often a 2-DPP draws each pair of them")

# %% dpp-see [markdown]
# **What to see.** The pairs at the left end are bright in the matrix: they are alike, so they are
# seldom drawn together. The dots stand on the bars, apart from chance: the sampler draws with
# exactly these probabilities.

# %% importance-text [markdown] tags=["slide"]
# **[Importance sampling](glossary.md#importance-sampling)** goes by the gradient: a snippet that
# pulls harder gets a larger chance, and the weight 1 / chance keeps it from counting more *on
# average*. Chances proportional to $\|g_i\|$ would be best, but to know these one needs pass 3 for
# all snippets. The norms of the *feature* gradients are known after pass 2, at no extra cost.
#
# A chance can't exceed 1, so what is cut off goes to the other snippets. To draw exactly n with
# given chances, lay them end to end, in random order, on a line of length n, and take whatever lies
# under the points u, u + 1, u + 2, ...: **[systematic sampling](glossary.md#systematic-sampling)**.


# %% importance tags=["slide-more"]
def my_chances(size, n):  # [N] -> [N] with sum n
    certain = torch.zeros(len(size), dtype=torch.bool)
    while True:
        rest = (n - certain.sum()) * size / size[~certain].sum()
        chance = torch.where(certain, 1.0, rest)
        if not (chance > 1).any():
            return chance
        certain |= chance > 1


def my_systematic(chance, draw, n):  # draw: N numbers for the order and one for u
    order = draw[:-1].argsort()
    ends = chance[order].cumsum(dim=0)
    return order[torch.searchsorted(ends, draw[-1].double() + torch.arange(n))].sort().values


NORM = SNIPPET_STRATEGIES["gradient_norm"]
mine = my_chances(norms.double(), count)
theirs = NORM.inclusion(context_of(1), count)[0]
assert torch.allclose(mine.float(), theirs, atol=1e-5)
my_picks = [my_systematic(mine, Draws([s]).rand(cells + 1)[0], count) for s in range(50)]
assert torch.equal(torch.stack(my_picks), NORM.pick(context_of(50), count))
print(f"chances from {mine.min():.2f} to {mine.max():.2f}, their sum {mine.sum():.2f}")

# %% unbiased-text [markdown]
# Is it unbiased? Over 4,000 draws, snippets must be picked as often as their chance says. The
# average of the sampled gradients must be the full gradient, except for the scatter that remains in
# an average of 4,000 draws.

# %% unbiased
weight = weights_of(NORM, count)
often = (weight > 0).double().mean(dim=0)
print(f"largest difference between frequency and chance: {(often - mine).abs().max():.3f}")
error, number = float(squared_error(weight).mean()), len(weight)
left_over = float(squared_error(weight.mean(dim=0, keepdim=True)))
print(f"squared error of one draw {error:.3f}, of the average of {number} {left_over:.5f}")
print(f"by theory the second is the first / {number}: {error / number:.5f}")
assert (often - mine).abs().max() < 0.05
assert left_over < 5 * error / number

# %% unbiased-see [markdown]
# **What to see.** Each snippet is picked as often as its chance says, up to the scatter of 4,000
# draws. The squared error of the average is less than a thousandth of that of one draw. It is a
# single random number itself, so it may well be twice as large as theory says, or half as large.

# %% picks-text [markdown] tags=["slide"]
# **Label-guided** strategies use the true actions: three quarters of the picks come from
# *foreground* (inside actions), *boundary* (near their ends), or
# *[background](glossary.md#background)*, the others from the rest. All chances are known, so 1 /
# chance repairs the preference.
#
# The next picture shows what all nine strategies pick: the colour is the frequency over 300 draws,
# and the dots are one draw.

# %% picks tags=["slide-more"]
how_often = torch.stack(
    [
        (weights_of(strategy, count, 300, by_chance=False) > 0).double().mean(dim=0)
        for strategy in SNIPPET_STRATEGIES.values()
    ]
)
figure = Figure(figsize=(12, 4), layout="constrained")
axis = figure.subplots()
rows = len(SNIPPET_STRATEGIES)
extent = (0, cells, rows, 0)
image = axis.imshow(how_often, cmap="cividis", aspect="auto", vmin=0, vmax=1, extent=extent)
for row, strategy in enumerate(SNIPPET_STRATEGIES.values()):
    one = strategy.pick(context_of(1), count)[0] + 0.5
    axis.plot(one, [row + 0.5] * count, "o", color="white", markeredgecolor="black", markersize=5)
    axis.axhline(row, color="white", linewidth=2)
for begin, end in actions.tolist():
    axis.plot([begin, end], [-0.25] * 2, color=COLOURS[3], linewidth=6)
axis.set(xlim=(0, cells), ylim=(rows, -0.5), yticks=np.arange(rows) + 0.5)
axis.set(yticklabels=list(SNIPPET_STRATEGIES), xlabel="cell (orange: a true action)")
axis.spines[:].set_visible(False)
figure.colorbar(image, label="share of draws that pick it")
run.show(figure, "picks", "How often each of nine strategies picks each snippet; one draw as dots")

# %% picks-see [markdown]
# **What to see.** Grid and block have the same even frequencies and opposite habits. Farthest
# points are almost the same in every draw, so a snippet in a dark cell *hardly ever* teaches the
# encoder. In JupyterLab, explore single draws with the sliders; without a running kernel you see
# one draw of each strategy.

# %% explorer tags=["slide"]
from etadlite.viz.widgets import sampler_explorer

explorer = sampler_explorer(cells, actions=actions, features=features[0], gradient=gradient[0])
run.explore(explorer, "explorer")

# %% explorer-see [markdown] tags=["slide-more"]
# **What to see.** Blue snippets are picked, grey ones are not, and orange marks an action.

# %% compare-text [markdown] tags=["slide"]
# ## 6 · Which strategy errs least?
#
# We compare all strategies at ratio 0.3. Where the chances are unknown (farthest, k-DPP), every
# pick counts N / n, as if they were equal. *Foreground, N / n* shows a preference that is **not**
# weighted away. *Exercise 1* is your sampler, or once more the grid if you have skipped it. Squared
# errors are relative to random sampling.

# %% compare
strategies = dict(SNIPPET_STRATEGIES)
strategies["exercise 1"] = SnippetStrategy(
    stratified, inclusion=lambda context, n: counted.expand(len(context.draws), -1)
)
cases = {name: (name, strategy.unbiased) for name, strategy in strategies.items()}
cases["foreground, N / n"] = ("foreground", False)
parts = {}
for label, (name, by_chance) in cases.items():
    number = 500 if name == "kdpp" else 4000
    weight = weights_of(strategies[name], count, number, by_chance)
    total = float(squared_error(weight).mean())
    # The average of R draws still scatters by total / R: taken off, so that no bias shows as none.
    bias = max(0.0, float(squared_error(weight.mean(dim=0, keepdim=True))) - total / number)
    parts[label] = (bias / predicted_error(count), (total - bias) / predicted_error(count))
for label, (bias, variance) in parts.items():
    print(f"{label:18} bias² {bias:5.2f} + variance {variance:5.2f} = {bias + variance:5.2f}")

# %% compare-picture tags=["slide"]
ordered = sorted(parts, key=lambda label: -sum(parts[label]))
biases, variances = np.array([parts[label] for label in ordered]).T
figure = Figure(figsize=(9, 4), layout="constrained")
axis = figure.subplots()
axis.barh(ordered, variances, color=COLOURS[0], label="variance")
axis.barh(ordered, biases, left=variances, color=COLOURS[1], label="bias²")
axis.axvline(1, linestyle="--", color="black", linewidth=1)
axis.set_xlabel("mean squared error at ratio 0.3 (random, predicted: 1)")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
run.show(figure, "strategies", "Bias and variance of the strategies, relative to random sampling")

# %% compare-see [markdown] tags=["slide-more"]
# **What to see** (in the `laptop` profile; random has 1). The **grid** errs far less than random
# picks, 0.41: what a left-out snippet would have said, its picked neighbours say. For the same
# reason the **block** is the worst, 3.32. **Gradient norms** help as well, 0.64: the snippets that
# pull hard are seldom missed. **Preferring [labels](glossary.md#label)** doesn't pay here: 1.50 for
# foreground, 2.12 for boundaries and 1.22 for background. **Farthest** has a small error, 0.68, but
# 0.24 of it is a bias of direction that no number of steps averages out.

# %% cost-text [markdown]
# What does choosing cost? A strategy that needs features or gradients can choose only *after* pass
# 1 or 2. A strategy that needs neither can choose before pass 1. If the encoder's first layers are
# [frozen](glossary.md#frozen), pass 1 can then keep their output for the picked snippets alone, and
# pass 3 starts from it.


# %% cost
def milliseconds(work, times=9):
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - begun))
    return float(np.median(taken))


def replay():
    torch.autograd.grad(encoder(video.inputs[:16]), weights, gradient[0, :, :16].T)


pass_3 = milliseconds(replay, 3) * count / 16
print(f"pass 3 for {count} snippets takes about {pass_3:.0f} ms; choosing them:")
for name, strategy in SNIPPET_STRATEGIES.items():
    context = context_of(1)
    taken = milliseconds(lambda s=strategy, c=context: s.pick(c, count))
    print(f"{name:14} needs {strategy.needs:9} {taken:6.2f} ms, error {sum(parts[name]):5.2f}")

# %% noise-text [markdown] tags=["slide"]
# **Is that error large?** A training step is noisy anyway: it sees a few videos instead of all. The
# variance of the *full* gradient from video to video is noise that everyone accepts. What does
# sampling add to it? For random picks we take the formula, and for the grid we measure.

# %% noise
GRID = SNIPPET_STRATEGIES["grid"]
whole, added = [], {"random": [], "grid": []}
for sample in some:
    rows = own_gradients(encoder, sample.inputs, two_passes(sample)[1])
    whole.append(rows.sum(dim=0))
    scatter = (rows - rows.mean(dim=0)).square().sum() / (cells - 1)
    added["random"].append(float(cells**2 * (1 - count / cells) / count * scatter))
    errors = (weights_of(GRID, count, 200) - 1) @ rows
    added["grid"].append(float(errors.square().sum(dim=1).mean()))
between = float(torch.stack(whole).var(dim=0).sum())
noise = {name: 1 + float(np.mean(values)) / between for name, values in added.items()}
for name, times in noise.items():
    print(f"{name:6} at ratio 0.3: {times:.1f} times the noise of a step with all snippets")

# %% noise-see [markdown]
# **What to see** (in the `laptop` profile). *Noise* here is variance. Random picks make the
# variance of a step 5.5 times as large, and a grid 2.9 times; the typical error, its square root,
# becomes 2.3 and 1.7 times as large. Still, an optimiser averages over hundreds of steps, and pass
# 3 costs a third as much.
#
# What this costs in [mAP](glossary.md#mAP), the measure of [detections](glossary.md#detection),
# only training can say. Over three seeds of the three systems of quickstart, 30 % of the snippets
# reached 71.9 % and all snippets 75.7 %: sampling cost 3.8 points of mAP (the table in the README).
# The recorded run of quickstart, one seed, shows 63.9 % and 71.7 %, 7.8 points. One seed says
# little.

# %% stale-text [markdown] tags=["slide"]
# ## 7 · What if the other snippets are not encoded at all?
#
# Pass 1 now takes most of the time: it encodes all N snippets, although only n of them get a
# gradient. A **feature bank** remembers the features of earlier steps (an idea of TALLFormer). A
# step then encodes its n picks only, and the detector sees n fresh features and N − n remembered
# ones: `sampling.others=bank`. The encoder has learned since these were computed: they are *stale*.
#
# How much does this change the gradient? We remember the features from before, let a copy of the
# system learn on, and compare at several ages. First the mixture, by hand and by the package.

# %% stale-mix
from etadlite.model.sequential_encoder import Recalled

later = copy.deepcopy(system)  # this one learns on
trained = list(later.encoder.encoder.parameters())


def encoder_gradient(features, picked):  # [1, C, N], indices [n] -> [weights of the encoder]
    features, draws = features.detach().requires_grad_(), Draws([video.seed])
    proposals = later.sample_proposals(draws, [actions])
    targets = make_targets([actions], [video.labels], proposals, cells, len(CLASSES))
    output = later.detector(features, proposals)
    loss = sum(detection_loss(output, targets, settings.losses, draws).values())
    push = torch.autograd.grad(loss, features)[0][0, :, picked].T
    parts = torch.autograd.grad(later.encoder.encoder(video.inputs[picked]), trained, push)
    return torch.cat([part.flatten() for part in parts])


fresh = later.encoder.encode(video.inputs[None])
mixed = 2 * features  # as if the encoder had changed much
mixed[..., picked[0]] = fresh[..., picked[0]]
known = Recalled(2 * features.mT, stamps=torch.ones(1, cells).long())
theirs = later.encoder(video.inputs[None], Draws([run.seed]), [actions], known)
assert torch.allclose(theirs, mixed, atol=1e-4), "n fresh features, the others from the bank"

# %% stale-measure
stale, moved, ages = {}, 0, (1, 4) if run.profile == "smoke" else (1, 5, 20, 50)
learning = make_optimizer(later, settings.training)
learning.load_state_dict(optimizer.state_dict())  # as if the training went on
for age in ages:
    while moved < age:
        for batch in itertools.islice(batches, age - moved):
            train_step(later, batch, learning, settings)
            moved += 1
    fresh = later.encoder.encode(video.inputs[None])
    drift = float((fresh - features).norm() / features.norm())
    whole, errors = encoder_gradient(fresh, torch.arange(cells)), []
    for number in range(2 if run.profile == "smoke" else 8):
        pick = RANDOM.pick(SnippetContext(Draws([number]), cells), count)[0]
        mixed = features.clone()
        mixed[..., pick] = fresh[..., pick]
        exact, bent = (cells / count * encoder_gradient(f, pick) for f in (fresh, mixed))
        errors.append([float((g - e).norm() ** 2) for g, e in ((exact, whole), (bent, exact))])
    sampling, staleness = np.mean(errors, axis=0) / float(whole.norm() ** 2)
    stale[age] = {"drift": drift, "sampling": sampling, "staleness": staleness}
    line = f"error² of sampling {sampling:6.2f}, staleness adds {staleness:6.2f}"
    print(f"{age:3} steps later: features moved by {drift:4.0%}; {line}")

# %% stale-see [markdown] tags=["slide-more"]
# **What to see** (in the `laptop` profile). After a single step the features have hardly moved, and
# staleness adds little beside the error of sampling. After five steps it adds most of what sampling
# adds, and after twenty about as much. In a training with a bank most features are older still: a
# snippet is picked, and so refreshed, once in 1 / ratio epochs on average.
#
# Two things soften this. Here the system is young and learns at its full rate; in a training the
# rate falls to zero, and the features come to rest. And the detector learns on mixed features from
# the start, so it gets used to them. The metrics `bank_age` and `bank_drift` of a run say how stale
# its bank is. What it costs in mAP, and what it saves, is measured by
# `python tests/benchmarks/second_engine.py`.

# %% guesses
f = count / cells
inverse = [cells / n for n in counts]  # the error is a straight line over 1 / ratio
half = 1 / np.interp(measured[3] / 2, measured[::-1], inverse[::-1])
rows = {  # predicted, measured
    "scale": (f, float(shares["without weights"].mean())),
    "halved": (2 * f / (1 + f), float(half)),  # from (1 - x) / x = (1 - f) / 2 f
    "grid": (None, sum(parts["grid"])),
}
print(f"{'':8}{'your guess':>12}{'predicted':>12}{'measured':>12}")
for name, values in rows.items():
    shown = ["-" if value is None else f"{value:.2f}" for value in (guess[name], *values)]
    print(f"{name:8}" + "".join(f"{text:>12}" for text in shown))

# %% exercises [markdown]
# ## 8 · Two more exercises

# %% exercise-2-text [markdown]
# ### Exercise 2 · The error by formula (easy, 5 minutes)
#
# `rows` [N, P] holds one gradient per snippet; n of them are drawn at random and weighted by N / n.
# Return one number: the mean squared error of their sum, added up over the P components. Do not
# divide it by the full gradient's length.
#
# <details><summary>Hint</summary>
#
# Section 3, with S² added up over the P components. `var` divides by N − 1, as S² wants.
#
# </details>


# %% exercise-2
def my_error(rows, n):
    # BEGIN SOLUTION
    size = len(rows)
    return size**2 * (1 - n / size) / n * rows.var(dim=0).sum()
    # END SOLUTION


if check("sampling_error", my_error):
    print(f"our video at ratio 0.3: {float(my_error(own, count) / length):.3f}")

# %% exercise-3-text [markdown]
# ### Exercise 3 · Weights of a guided sampler (medium, 10 minutes)
#
# A sampler draws `n_inside` snippets at random among those where `inside` [N] (bool) is true, and
# `n_outside` among the others. Return the weight [N] that each snippet must get when it is picked,
# so that the sampled gradient is unbiased.
#
# <details><summary>Hint</summary>
#
# A snippet's chance is (picks of its group) / (size of its group); the weight is 1 / chance.
# `torch.where(inside, a, b)` chooses between two values.
#
# </details>


# %% exercise-3
def my_weights(inside, n_inside, n_outside):
    # BEGIN SOLUTION
    return torch.where(inside, inside.sum() / n_inside, (~inside).sum() / n_outside)
    # END SOLUTION


check("group_weights", my_weights)

# %% full-run [markdown]
# ## 9 · The full run
#
# A small error of the gradient is not yet a high mAP. The first command trains and tests every
# strategy at every ratio, over three seeds. It takes hours on a laptop, and the same command
# continues where it was stopped. The second is a smaller study:
#
# ```
# etadlite ablate snippets --out runs/ablate
# etadlite ablate snippets --seeds 1 --ratios 0.3,1 --strategies random,grid,block
# ```
#
# It writes a table of mAP, memory and seconds, and a picture. Seeds differ by a point or more. In a
# training of your own, set `sampling.snippet_strategy=grid`, and `sampling.rescale=true` for
# weights.

# %% metrics
run.finish(
    {
        "error measured / predicted": measured[3] / predicted[3],
        "squared error grid / random": sum(parts["grid"]),
    },
    video={"name": video.name, "actions": len(actions), "covered": covered(video)},
    ratio_1_difference=worst,
    dial={"ratio": ratios, "predicted": predicted, "measured": measured, "unweighted": without},
    largest_deviation=max(off),
    strategies={name: {"bias²": b, "variance": v} for name, (b, v) in parts.items()},
    noise_of_a_step=noise,
    staleness=stale,
    compare={name: {"predicted": p, "measured": m} for name, (p, m) in rows.items()},
)
print("written to out_dir: metrics.json and pictures")

# %% summary [markdown] tags=["slide"]
# ## Summary
#
# - The full gradient is a sum with one part per snippet; a sampled gradient is an estimator of it.
# - Without weights, random picks give the ratio times the full gradient on average: the right
#   direction, but shorter. Weights 1 / chance make every strategy with known chances unbiased.
# - The error of random picks follows N² (1 − f) / n · S²: it can be predicted, and it is 0 at ratio
#   1.
# - Neighbours are alike: picks that are spread out err less than random ones, and blocks err more.
# - A feature bank saves most of pass 1; its features are as stale as they are old.

# %% limits [markdown] tags=["slide-more"]
# ## Limits
#
# All of this was measured on one video, at one moment of a training, with one small encoder. Later
# in a training other strategies may gain. A smaller gradient error need not be a better detector.

# %% references [markdown]
# ## References
#
# - F. Cheng, G. Bertasius, *TALLFormer: Temporal Action Localization with a Long-memory
#   Transformer*, ECCV 2022, [arXiv:2204.01680](https://arxiv.org/abs/2204.01680): a feature bank.
# - S. Liu et al., *ETAD: Training Action Detection End to End on a Laptop*, CVPR Workshops 2023,
#   [arXiv:2205.07134](https://arxiv.org/abs/2205.07134): sampled gradients.
# - W. Cochran, *Sampling Techniques*, 1977: the formula, stratified and systematic sampling.
# - A. Kulesza, B. Taskar, *Determinantal Point Processes for Machine Learning*, 2012.
# - A. Katharopoulos, F. Fleuret, *Not All Samples Are Created Equal*, ICML 2018.

# %% questions-text [markdown]
# ## Questions
#
# Five questions have choices, and each choice is explained. Three questions are to be answered in
# words; write your answer before you unfold what counts. In JupyterLab, run the cell and press the
# buttons.

# %% questions tags=["alone"]
from etadlite.course.quiz import show_quiz

show_quiz("03_snippet_gradient_sampling")
