# %% card [markdown] tags=["slide"]
# # 2 · Sequential snippet encoding: thousands of frames in the memory of a few
#
# **The question.** A [detector](glossary.md#detector) that learns from raw video must push its
# gradient through the network that sees the pixels, and a long video has thousands of frames. How
# can their [features](glossary.md#feature) be computed, *and trained through*, in the memory of a
# few?
#
# **You will** take apart the convolution of a video network, count what it computes and what it
# keeps, write **[sequential encoding](glossary.md#sequential-encoding)** yourself in about ten
# lines, prove that its gradient is the true one, and predict the memory of a training step before
# it runs.
#
# **You need** PyTorch (`nn.Module`, `backward()`) and `00_quickstart`; no knowledge of video.
#
# **What it takes**, from recorded runs:
#
# <!-- card -->
#
# **Shapes** have one legend everywhere: **B** videos, **N** snippets, **F** frames, **C** channels,
# **T** cells of time, **P** proposals. H and W are the height and width of a frame in pixels.

# %% parameters-text [markdown]
# ### Parameters
#
# Run the notebook as it is, or change a value here first. `smoke` only proves that everything runs;
# its timings mean nothing. Paths are relative to `notebooks/`.

# %% parameters tags=["parameters"]
# Parameters of this notebook; papermill can replace each of them.
profile = "laptop"  # smoke, laptop or full
data_root = "../data"  # where the generated videos are kept
out_dir = "../runs/02_sequential_snippet_encoding"  # pictures and metrics
seed = 0  # governs weights and order
device = "auto"  # auto, cpu, cuda or mps
interactive = "auto"  # bars and sliders: true, false or auto

# %% setup
import copy
import time
from math import prod

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

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
MIB = 2**20  # bytes

# %% data-text [markdown] tags=["slide"]
# ## 1 · A video as snippets
#
# A training step of ETAD has three passes. This notebook builds what is bright in the picture: the
# passes through the [encoder](glossary.md#encoder), and the memory that they need.

# %% method tags=["slide-more"]
from etadlite.viz.method import draw_method

alt = "A training step of ETAD in three passes; bright: the first and the third, and their memory"
run.show(draw_method("passes"), "method", alt)

# %% snippets-text [markdown]
# The video's time is cut into **N** equal pieces, the **[cells](glossary.md#cell)**. From the
# middle of each we take **F** consecutive frames: a **[snippet](glossary.md#snippet)**. An
# **encoder** turns each snippet into a **feature**, C numbers that say what happens there; a
# **detector** reads the N features and says which [actions](glossary.md#action) happen from when to
# when. The videos are those of `00_quickstart`: a program draws stick figures.

# %% data
from etadlite.runs.demo import demo_settings
from etadlite.stickfigures.classes import CLASSES
from etadlite.stickfigures.dataset import make_dataset
from etadlite.training.loop import open_split

print("making the videos; those that exist are kept")
make_dataset(run.data, run.size, progress=run.interactive)
changes = [*run.changes, "data.snippets=128"]
settings = demo_settings("end to end, all snippets", run.data, run.seed, changes)
sample = open_split(settings, training=False)[0]
snippets = sample.inputs  # every cell's snippet, still as bytes
N, _, F, H, W = snippets.shape
print("snippets [N, 3, F, H, W]:", list(snippets.shape), snippets.dtype)
print(f"{N * F:,} frames, {snippets.nbytes / MIB:.1f} MiB")

# %% snippets-picture tags=["slide-more"]
first, last = sample.actions[0].tolist()
shown = int((first + last) / 2)  # a snippet in the middle of an action
cells = np.linspace(0, N - 1, F).round().astype(int)
figure = Figure(figsize=(12, 3.6), layout="constrained")
axes = figure.subplots(2, F)
for number, cell in enumerate(cells):
    axes[0, number].imshow(snippets[cell, :, F // 2].permute(1, 2, 0))
    axes[0, number].set_title(f"cell {cell}", fontsize=10)
    axes[1, number].imshow(snippets[shown, :, number].permute(1, 2, 0))
    axes[1, number].set_title(f"frame {number}", fontsize=10)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("the video")
axes[1, 0].set_ylabel(f"snippet {shown}: {CLASSES[sample.labels[0]]}")
alt = "Above: one frame from each of eight cells of the video. Below: the frames of one snippet"
run.show(figure, "snippets", alt)

# %% snippets-see [markdown] tags=["slide-more"]
# **What to see.** The upper row spans the whole video, the lower one a fraction of a second of an
# action. As bytes, all the frames take only a few megabytes. What a network computes from them
# takes far more.

# %% guess-text [markdown]
# **Predict first.** Write down three guesses; the end of section 8 compares them. Leave `None`
# where you prefer to wait.

# %% guess
guess = {
    "memory": None,  # plain training keeps how many times the activations of chunks of 16?
    "time": None,  # encoding in three passes takes how many times as long as plainly?
    "prefix": None,  # with frozen stages encoded once, not twice: which share (0 to 1) of the time?
}

# %% conv-text [markdown] tags=["slide"]
# ## 2 · The convolution that sees motion
#
# A convolution over an image mixes each pixel with its neighbours. A video has a third axis, time.
# **[R(2+1)D](glossary.md#R(2+1)D)** treats the two kinds of neighbours one after the other: a
# **space convolution** with kernels 1×3×3, which looks at each frame alone, and a **time
# convolution** with kernels 3×1×1, which looks at one place in three frames. Two filters made by
# hand show what each can see.

# %% filters tags=["slide-more"]
grey = snippets[shown].float().mean(0)[None, None]  # [1, 1, F, H, W]
sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # finds vertical edges
across = nn.functional.conv3d(grey, sobel[None, None, None], padding=(0, 1, 1))
edges = across.abs()
change = torch.tensor([-1.0, 0, 1])[None, None, :, None, None]  # [1, 1, 3, 1, 1]
motion = nn.functional.conv3d(grey, change, padding=(1, 0, 0)).abs()
rows = {"frame": grey, "space filter": edges, "time filter": motion}
figure = Figure(figsize=(9, 4.6), layout="constrained")
for axes, (name, values) in zip(figure.subplots(3, F - 2), rows.items(), strict=True):
    inner = values[0, 0, 1:-1]  # beyond the ends, time is padded with zeros
    brightest, colours = float(inner.quantile(0.995)), "gray" if name == "frame" else "cividis"
    for axis, picture in zip(axes, inner[:, 1:-1, 1:-1], strict=True):
        axis.imshow(picture, cmap=colours, vmin=0, vmax=brightest)
        axis.set(xticks=[], yticks=[])
    axes[0].set_ylabel(name)
alt = "Frames of a snippet; under them where a space filter and where a time filter responds"
run.show(figure, "filters", alt)

# %% filters-see [markdown] tags=["slide-more"]
# **What to see.** The space filter draws edges, of figure and background alike. The time filter
# answers where brightness *changes*: moving limbs and, as the camera shakes, some edges behind. A
# network learns many such filters.

# %% factor-text [markdown] tags=["slide"]
# One 2+1 convolution from `planes_in` to `planes_out` channels (*planes*) has **[mid
# planes](glossary.md#mid-planes)** in between: so many that it has the weights of a full 3×3×3
# convolution. What it gains is a second nonlinearity, between space and time. (**[Batch
# norm](glossary.md#batch-norm)** subtracts a mean and divides by a deviation; section 4 comes back
# to it.) We write it down, then check two things: with the same weights, torchvision's module gives
# the same numbers; and a space convolution is an *image* convolution of every frame.


# %% factor
def conv_2plus1(planes_in, planes_out):
    mid = 27 * planes_in * planes_out // (9 * planes_in + 3 * planes_out)
    return nn.Sequential(
        nn.Conv3d(planes_in, mid, (1, 3, 3), padding=(0, 1, 1), bias=False),  # space
        nn.BatchNorm3d(mid),
        nn.ReLU(inplace=True),
        nn.Conv3d(mid, planes_out, (3, 1, 1), padding=(1, 0, 0), bias=False),  # time
    )


def weights_in(module):
    return sum(parameter.numel() for parameter in module.parameters())


ours, full = conv_2plus1(64, 64), nn.Conv3d(64, 64, 3, bias=False)
convolutions = sum(weights_in(ours[i]) for i in (0, 3))
print(f"2+1: {convolutions:,} weights in two convolutions; 3x3x3: {weights_in(full):,}")

# %% factor-check
from torchvision.models.video.resnet import Conv2Plus1D

theirs = Conv2Plus1D(64, 64, ours[0].out_channels)
theirs.load_state_dict(ours.state_dict())
x = torch.randn(2, 64, 8, 12, 12)  # [n, planes, F, H, W]
assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-5)

as_image = nn.functional.conv2d(x.transpose(1, 2).flatten(0, 1), ours[0].weight[:, :, 0], padding=1)
as_image = as_image.unflatten(0, (2, 8)).transpose(1, 2)  # frames back to their places
assert torch.allclose(ours[0](x), as_image, atol=1e-4)
print("equal to torchvision's, and its first half to a convolution of images")

# %% stages-text [markdown] tags=["slide"]
# An encoder is a **[stem](glossary.md#stem)** and four **[stages](glossary.md#stage)** of such
# convolutions, then an average over time and space. The package's `StagedEncoder` is the paper's
# R(2+1)D-34, the smaller R(2+1)D-18, or a tiny one for laptops. Later stages have fewer positions
# and more planes.
#
# On PyTorch's `meta` device, tensors have shapes but no numbers. That is enough to count
# **parameters**, **operations** (a multiplication and an addition are two), and the
# **[activations](glossary.md#activation)** that training keeps for the way back.
#
# What is kept follows from the chain rule: a normalisation needs its input, which is the output of
# the convolution before it; a ReLU needs its output, and the next convolution needs the same
# tensor. So we add up the outputs of all convolutions and all ReLUs.

# %% stage-costs tags=["slide-more"]
from torch.utils.flop_counter import FlopCounterMode

from etadlite.encoders import R2Plus1D, freeze, tiny_encoder


def stage_costs(encoder, x):
    kept, costs = [], {}
    for module in encoder.modules():
        if isinstance(module, (nn.Conv3d, nn.ReLU)):
            module.register_forward_hook(lambda m, given, out: kept.append(4 * out.numel()))
    for name in encoder.stage_names:
        stage = getattr(encoder, name)
        kept.clear()
        with FlopCounterMode(display=False) as counter:
            x = stage(x)
        costs[name] = weights_in(stage), counter.get_total_flops(), sum(kept)
    return costs


# %% stages-picture tags=["slide-more"]
with torch.device("meta"):
    costs = stage_costs(R2Plus1D(34), torch.zeros(1, 3, 16, 112, 112))  # the paper's size
for name, (parameters, operations, kept) in costs.items():
    sizes = f"{parameters / 1e6:6.2f} M parameters, {operations / 1e9:5.1f} G operations"
    print(f"{name:>6}: {sizes}, keeps {kept / MIB:5.1f} MiB")
totals = [sum(column) for column in zip(*costs.values(), strict=True)]
print(
    f"   all: {totals[0] / 1e6:.1f} M, {totals[1] / 1e9:.0f} G, {totals[2] / MIB:.0f} MiB a snippet"
)
figure = Figure(figsize=(10, 2.8), layout="constrained")
axis = figure.subplots()
names = ["parameters", "operations", "activations kept"]
left = np.zeros(3)
for colour, (name, values) in zip(COLOURS, costs.items(), strict=False):
    share = 100 * np.divide(values, totals)
    axis.barh(names, share, left=left, color=colour, edgecolor="white", label=name)
    left += share
axis.set(xlabel="share of R(2+1)D-34 (%)", xlim=(0, 100))
axis.invert_yaxis()
axis.spines[["top", "right"]].set_visible(False)
figure.legend(loc="outside right center", frameon=False)
alt = "Shares of the five parts: parameters sit in late stages, operations and memory in early ones"
run.show(figure, "stages", alt)

# %% stages-see [markdown] tags=["slide-more"]
# **What to see.** Late stages hold the *parameters*; early ones, which see many pixels, cost *time
# and memory*. So it pays twice to leave early stages **[frozen](glossary.md#frozen)**, which means
# that their weights never change: a frozen stage keeps nothing for the backward pass, and section 6
# saves its time as well. With all stages trained, one snippet keeps 761 MiB, so the 512 snippets of
# four videos would keep 380 *GiB*. That is the problem.

# %% plain-text [markdown] tags=["slide"]
# ## 3 · A plain pass keeps everything
#
# The tiny encoder is small enough to watch. It is built like R(2+1)D with **[group
# norm](glossary.md#group-norm)**, which takes its mean and deviation from groups of planes *within*
# a snippet. First the prediction: each part keeps four bytes × positions × (two tensors of mid
# planes and two of out planes). A stage keeps a third tensor of out planes, from the shortcut
# around it; the stem keeps its float frames.

# %% plain-predicted
# part: mid planes, out planes, positions [F, H, W] of either, tensors of out planes
parts = {
    "stem": (8, 16, (8, 24, 24), (8, 24, 24), 2),
    "layer1": (16, 16, (8, 12, 12), (8, 12, 12), 3),
    "layer2": (24, 24, (8, 6, 6), (4, 6, 6), 3),
    "layer3": (32, 32, (4, 3, 3), (2, 3, 3), 3),
    "layer4": (48, 48, (2, 3, 3), (1, 3, 3), 3),
}
predicted = {
    name: 4 * (2 * mid * prod(between) + tensors * out * prod(behind))
    for name, (mid, out, between, behind, tensors) in parts.items()
}
predicted["stem"] += 4 * 3 * F * H * W  # the normalised frames
one = sum(predicted.values())
print(f"one snippet should keep {one / MIB:.3f} MiB, and {N} of them {N * one / MIB:.1f} MiB")

# %% plain-measured tags=["slide-more"]
from etadlite.training.activations import SavedActivations

encoder = tiny_encoder()  # with its trained weights; nothing is frozen
measured = {}
with SavedActivations(encoder) as saved:  # adds up what autograd keeps; weights do not count
    x = encoder.normalise(snippets)
    for name in encoder.stage_names:
        before = saved.live_bytes
        x = getattr(encoder, name)(x)
        measured[name] = saved.live_bytes - before
for name in parts:
    guessed, real = N * predicted[name] / MIB, measured[name] / MIB
    print(f"{name}: predicted {guessed:6.2f} MiB, measured {real:6.2f} MiB")
ratio_plain = sum(measured.values()) / (N * one)
print(f"measured / predicted: {ratio_plain:.4f}")
assert abs(ratio_plain - 1) < 0.1
del x  # and with it, all that was kept

# %% plain-see [markdown]
# **What to see.** Counting bytes is arithmetic: the prediction leaves out only the means and
# deviations of the norms, which are few. The frames took 6.8 MiB as bytes, and their activations
# take 29 times as much. *All* of them must wait until the detector's gradient arrives.

# %% chunks-text [markdown] tags=["slide"]
# ## 4 · First idea: encode in chunks, keep nothing
#
# Without gradient nothing needs to wait. So we encode a **[chunk](glossary.md#chunk)** of a few
# snippets, keep its features (C numbers per snippet) and free everything else.


# %% chunks tags=["slide-more"]
def encode_chunks(encoder, snippets, chunk_size):
    with torch.no_grad():
        return torch.cat([encoder(chunk) for chunk in snippets.split(chunk_size)])  # [N, C]


def chunking_error(encoder, chunk_size, few=snippets[:64]):
    apart, together = (encode_chunks(encoder, few, size) for size in (chunk_size, len(few)))
    return float((apart - together).norm() / together.norm())


with torch.no_grad():
    whole = encoder(snippets)
chunked = encode_chunks(encoder, snippets, 16)
chunk_difference = float((chunked - whole).abs().max() / whole.abs().max())
print("features [N, C]:", list(chunked.shape))
print(f"largest difference to encoding all at once: {chunk_difference:.1e} of the largest feature")
assert chunk_difference < 1e-4

# %% norm-text [markdown] tags=["slide"]
# The features are equal up to rounding, *as long as a snippet's feature does not depend on the
# snippets beside it*. **Batch norm** breaks this in training mode: it takes mean and deviation over
# the whole batch, and the batch is now a chunk. Does the feature then change a little, or a lot? We
# replace every norm and compare.


# %% norm tags=["slide-more"]
def with_batch_norm(module):
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, nn.BatchNorm3d(child.num_channels))
        else:
            with_batch_norm(child)
    return module


normed, sizes = with_batch_norm(tiny_encoder()), [1, 2, 4, 8, 16, 32]
norms = [module for module in normed.modules() if isinstance(module, nn.BatchNorm3d)]
errors = {"group norm": [chunking_error(encoder, size) for size in sizes]}
for mode in ("training", "eval"):
    for module in norms:
        module.train(mode == "training")
    errors[f"batch norm, {mode} mode"] = [chunking_error(normed, size) for size in sizes]
for name, values in errors.items():
    print(f"{name:>25}: {', '.join(f'{value:.0e}' for value in values)}")
assert errors["batch norm, eval mode"][2] < 1e-4 < errors["batch norm, training mode"][2]
normed.train()  # of the package: everything but batch norm
assert not any(module.training for module in norms)

# %% norm-picture tags=["slide-more"]
figure = Figure(figsize=(8, 3.4), layout="constrained")
axis = figure.subplots()
looks = zip("oDs", (COLOURS[0], COLOURS[3], COLOURS[2]), errors.items(), strict=True)
for marker, colour, (name, values) in looks:
    axis.plot(sizes, np.maximum(values, 1e-9), marker + "-", color=colour, label=name)
axis.set_xscale("log", base=2)
axis.set_yscale("log")
axis.set(xticks=sizes, xticklabels=sizes, ylim=(3e-10, 10))
axis.set(xlabel="snippets in a chunk", ylabel="relative change\nof the features")
axis.grid(alpha=0.3)
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
alt = "Batch norm in training mode changes features by tens of percent; the others by rounding only"
run.show(figure, "norms", alt)

# %% norm-see [markdown] tags=["slide-more"]
# **What to see.** In training mode a feature depends on its neighbours: it changes by 50 % in
# chunks of one, and still by 7 % in chunks of 32. In *eval mode* batch norm uses fixed statistics,
# and only rounding is left (drawn at 10⁻⁹ where it is zero). `StagedEncoder` keeps batch norm in
# eval mode, even after a call of `train()`.

# %% replay-text [markdown] tags=["slide"]
# ## 5 · Second idea: the replay
#
# Encoding without gradient is enough for *using* a detector. To *train* the encoder, the gradient
# must get through. By the chain rule, this can be done in two steps. Let *x*ₙ be the feature of
# snippet n and *g*ₙ = ∂loss/∂*x*ₙ its gradient. Then
#
# ∂loss/∂weights = Σₙ (∂*x*ₙ/∂weights)ᵀ *g*ₙ
#
# The **detector** alone determines all *g*ₙ, and it needs nothing but the features for this. The
# sum over n may be taken in any order, and in chunks. So a training step has three passes. To
# compare gradients we need a real loss: the package's detector on every second snippet, with an
# encoder in double precision.

# %% loss
from etadlite.base.draws import Draws
from etadlite.model.system import System
from etadlite.training.losses import detection_loss
from etadlite.training.targets import make_targets

few = snippets[::2]
proposals = torch.combinations(torch.arange(0.0, len(few) + 1, 4))[None]  # [B, P, 2] start, end
action_cells = [sample.actions / 2]  # a cell is now twice as long
targets = make_targets(action_cells, [sample.labels], proposals, len(few), len(CLASSES))
detector = System(settings).detector


def loss_of(features):  # [N, C]
    said = detector(features.float().T[None], proposals)
    return sum(detection_loss(said, targets, settings.losses, Draws([run.seed])).values())


print(f"loss: {float(loss_of(encoder(few).detach()).detach()):.2f}")

# %% pass-1-text [markdown] tags=["slide"]
# **Pass 1** encodes without gradient. **Pass 2** makes the features a **[leaf](glossary.md#leaf)**:
# a tensor in which autograd gathers a gradient as it does in weights. `backward()` then runs
# through the detector and stops there.

# %% pass-1 tags=["slide-more"]
exact = copy.deepcopy(encoder).double()
features = encode_chunks(exact, few, chunk_size=5)  # pass 1
features.requires_grad_()  # a leaf: nothing is known of how it came about
loss_of(features).backward()  # pass 2
print("features [N, C]:", list(features.shape), " their gradient:", list(features.grad.shape))
print("gradient in the encoder:", next(exact.parameters()).grad)

# %% pass-3-text [markdown] tags=["slide"]
# **Pass 3**, the *[replay](glossary.md#replay)*, encodes once more, now with gradient, and pushes
# the stored *g*ₙ into each chunk: on a tensor of many numbers, `backward(gradient)` multiplies by
# `gradient`, as in the sum above. The weights' `.grad` adds up over the chunks.
#
# Not every snippet has to be replayed: 03 picks some of them, and lets each count by a *weight*.
# Here all are picked, with weight 1.

# %% assignment-setup tags=["assignment"]
from math import prod

import torch

from etadlite.course import check

# %% exercise-1-text [markdown]
# ### Exercise 1 · The three passes (harder, 25 minutes)
#
# This is the heart of the method. Write a function of
#
# - `encoder`, which maps snippets uint8 [n, 3, F, H, W] to features [n, C];
# - `snippets` [M, 3, F, H, W] and the `chunk_size`: never give the encoder more snippets at once,
#   and no fewer while enough are left;
# - `loss_of`, which maps features [M, C] to one number: the detector and its loss. Call it once;
# - `picked` [n], the indices of the snippets that are replayed, in any order, and their `weights`
#   [n]: the push of each picked snippet is multiplied by its weight.
#
# Afterwards the detector's weights hold their gradient in `.grad`, and so do the encoder's. What
# was in `.grad` before stays and is added to, as `backward()` always does. Do not switch a network to
# `eval()`. Return the loss. At no
# time may autograd keep the activations of more than one chunk.
#
# The answer is saved in `my_etad.py` (01 explains this file), so it must not call `encode_chunks`
# above. The checker compares its gradients with plain back-propagation and counts the bytes that
# autograd keeps.
#
# <details><summary>Hint</summary>
#
# Pass 1 is `encode_chunks` above and pass 2 the last cell. For pass 3, `picked.split(chunk_size)`
# are the rows of the chunks. The push of picked snippet i is row `picked[i]` of `features.grad`,
# times `weights[i]`. Call `backward(push)` for each chunk before the next one is encoded.
#
# </details>


# %% exercise-1
def three_passes(encoder, snippets, loss_of, chunk_size, picked, weights):
    # BEGIN SOLUTION
    with torch.no_grad():  # pass 1
        features = torch.cat([encoder(chunk) for chunk in snippets.split(chunk_size)])
    features.requires_grad_()
    loss = loss_of(features)
    loss.backward()  # pass 2
    push = features.grad[picked] * weights[:, None]
    for rows, part in zip(picked.split(chunk_size), push.split(chunk_size), strict=True):
        encoder(snippets[rows]).backward(part)  # pass 3: the activations live only here
    return loss.detach()
    # END SOLUTION


check("three_passes", three_passes)
three_passes = run.mine("three_passes", three_passes)

# %% equal-text [markdown] tags=["slide"]
# **Is it the same gradient?** We compare it with plain back-propagation through everything at once,
# and with the package's `SequentialEncoder`. This is an ordinary module: call it, and `backward()`
# does the rest.

# %% equal tags=["slide-more"]
from etadlite.model import SequentialEncoder


def gradient_after(step):
    exact.zero_grad()
    step()
    return torch.cat([parameter.grad.flatten() for parameter in exact.parameters()])


plain = gradient_after(lambda: loss_of(exact(few)).backward())
every = torch.arange(len(few)), torch.ones(len(few), dtype=torch.float64)  # picked, weights
in_passes = gradient_after(lambda: three_passes(exact, few, loss_of, 5, *every))
sequential = SequentialEncoder(exact, chunk_size=7, ratio=1.0)  # [B, N, 3, F, H, W] -> [B, C, N]
packaged = gradient_after(lambda: loss_of(sequential(few[None])[0].T).backward())
differences = {"three passes": in_passes - plain, "package": packaged - plain}
print(f"largest gradient: {plain.abs().max():.2e}")
for name, difference in differences.items():
    differences[name] = float(difference.abs().max() / plain.abs().max())
    print(f"{name}: differs by {differences[name]:.1e} of it")
assert max(differences.values()) < 1e-6

# %% trace-text [markdown] tags=["slide"]
# The gradients are equal to the last digits. The *[ratio](glossary.md#ratio)* is the share of the
# snippets that are replayed; at ratio 1 all of them are, and the gradient is the full one, whatever
# the chunk size. `03_snippet_gradient_sampling` turns that dial.
#
# Now watch the memory. `LiveTensors` counts the bytes that are alive after every operation; its
# readings make a curve over a whole step. `marks` notes when the detector begins, and when the
# gradient has come back to the features.


# %% trace
from etadlite.memory import LiveTensors


class Trace(LiveTensors):
    def __init__(self, existing):
        super().__init__(existing)
        self.curve = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = super().__torch_dispatch__(func, types, args, kwargs)
        self.curve.append((time.perf_counter(), self.live_bytes / MIB))
        return made


def traced(step):
    marks = []

    def noted(features):
        marks.append(len(trace.curve))
        features.register_hook(lambda gradient: marks.append(len(trace.curve)))
        return loss_of(features)

    with Trace([*encoder.parameters(), *detector.parameters(), snippets]) as trace:
        step(noted)
    return np.array(trace.curve).T, marks


# %% trace-picture tags=["slide-more"]
every = torch.arange(len(few)), torch.ones(len(few))
curves = {
    "plain": traced(lambda loss: loss(encoder(few)).backward()),
    "three passes": traced(lambda loss: three_passes(encoder, few, loss, 4, *every)),
}
figure = Figure(figsize=(12, 3.8), layout="constrained")
labels = ("encoder, forward", "detector, forward and backward", "encoder, (forward and) backward")
both = figure.subplots(1, 2, sharey=True)
for axis, (name, ((seconds, alive), marks)) in zip(both, curves.items(), strict=True):
    edges = [0, *marks, len(alive)]
    for number, colour in enumerate((COLOURS[5], COLOURS[1], COLOURS[0])):
        part = slice(max(edges[number] - 1, 0), edges[number + 1])
        moments = 1000 * (seconds[part] - seconds[0])
        axis.fill_between(moments, alive[part], color=colour, linewidth=0, label=labels[number])
    axis.set(title=f"{name}: at most {alive.max():.0f} MiB", xlabel="time (ms)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3)
both[0].set_ylabel("memory alive (MiB)")
figure.legend(*both[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=0)
alt = "Memory over a step: plain, one high plateau; in three passes, low teeth around the detector"
run.show(figure, "trace", alt)

# %% trace-see [markdown] tags=["slide-more"]
# **What to see.** On the left is a mountain: activations pile up, wait while the detector works,
# and are freed in the backward pass. On the right are low teeth (chunks without gradient), then the
# detector, then higher teeth (chunks with gradient, each freed before the next). A longer video
# raises the mountain on the left; on the right it only adds teeth.
#
# Don't read the times here as the price of three passes. Python counts tensors after every single
# operation, which costs more than most of these operations do, and chunks of 4 make many small
# ones. Section 8 measures the time without a counter.

# %% prefix-text [markdown] tags=["slide"]
# ## 6 · What never changes need not be computed twice
#
# Three passes encode twice. But a real encoder's stem and first stages are often *frozen*: their
# output, the **[prefix](glossary.md#prefix)**, is the same in pass 1 and pass 3. `StagedEncoder`
# splits there, `encode_suffix(encode_prefix(frames))`, and `SequentialEncoder` keeps the prefix in
# between. We take R(2+1)D-18 with random weights and two frozen stages, and count the snippets that
# pass its stem.

# %% prefix
big = freeze(R2Plus1D(18, own_planes=False), stages=2)
part = snippets[: 4 if run.profile == "smoke" else 8]
with torch.no_grad():
    kept_prefix = big.encode_prefix(part)
    assert torch.allclose(big.encode_suffix(kept_prefix), big(part), atol=1e-4)
print("prefix [n, c, f, h, w]:", list(kept_prefix.shape))
counts = {"stem": 0, "layer4": 0}


def count(name):
    def add(module, given, out):
        counts[name] += len(out)

    getattr(big, name).register_forward_hook(add)


count("stem")
count("layer4")
for keep in ("nothing", "device"):
    counts.update(stem=0, layer4=0)
    SequentialEncoder(big, 4, keep=keep)(part[None]).sum().backward()
    print(
        f"keep={keep:8} {counts['stem']} snippets through the stem, {counts['layer4']} to the end"
    )
assert counts == {"stem": len(part), "layer4": 2 * len(part)}

# %% prefix-time-text [markdown] tags=["slide"]
# Let the prefix cost *p* operations forward and the rest *s*. Backward costs about twice the
# forward pass: a product for the gradient of the input, one for that of the weights. Encoded twice,
# a step costs 2*p* + 4*s*; with the prefix kept, *p* + 4*s*.

# %% prefix-time tags=["slide-more"]
with torch.device("meta"):
    costs_18 = stage_costs(R2Plus1D(18, own_planes=False), torch.zeros(1, 3, F, H, W))
operations = [cost[1] for cost in costs_18.values()]
p, s = sum(operations[:3]), sum(operations[3:])


def seconds_of(work, times):
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


def step_with(keep):
    return lambda: SequentialEncoder(big, 4, keep=keep)(part[None]).sum().backward()


times = 1 if run.profile == "smoke" else 3
seconds = {keep: seconds_of(step_with(keep), times) for keep in ("nothing", "device")}
prefix_share = (p + 4 * s) / (2 * p + 4 * s), seconds["device"] / seconds["nothing"]
print(f"the prefix holds {p / (p + s):.0%} of the operations of a forward pass")
print(f"time with it kept: predicted {prefix_share[0]:.2f}, measured {prefix_share[1]:.2f}")

# %% prefix-see [markdown]
# **What to see.** The time is shorter, and the price is memory: the prefix needs room for every
# snippet that is replayed. A processor does not run all stages equally fast, so clock and count
# agree only roughly. In the paper's encoder, stem, layer1 and layer2 take 73 % of the operations
# (section 2).

# %% sweep-text [markdown] tags=["slide"]
# ## 7 · Predicted against measured
#
# **Activations.** Plain training keeps N × `one` bytes, three passes keep chunk × `one`.


# %% sweep
def peak_bytes(module, frames):
    with SavedActivations(encoder, snippets) as saved:
        module(frames).sum().backward()
    encoder.zero_grad()
    return saved.peak_bytes


chunk_size, lengths = 16, [8, 16, 32, 64, 128]
in_chunks = SequentialEncoder(encoder, chunk_size)
foreseen = {"plain": [n * one for n in lengths]}
foreseen["three passes"] = [min(n, chunk_size) * one for n in lengths]
found = {"plain": [peak_bytes(encoder, snippets[:n]) for n in lengths]}
found["three passes"] = [peak_bytes(in_chunks, snippets[None, :n]) for n in lengths]
ratios = {name: np.divide(found[name], foreseen[name]) for name in found}
for name, values in ratios.items():
    for n, guessed, real, ratio in zip(lengths, foreseen[name], found[name], values, strict=True):
        sizes = f"predicted {guessed / MIB:6.1f} MiB, measured {real / MIB:6.1f} MiB"
        print(f"{name:>12}, N = {n:3}: {sizes}, ratio {ratio:.3f}")
    assert np.abs(values - 1).max() < 0.1

# %% sweep-picture tags=["slide-more"]
figure = Figure(figsize=(8, 4), layout="constrained")
axis = figure.subplots()
for name, colour in (("plain", COLOURS[3]), ("three passes", COLOURS[0])):
    axis.plot(lengths, np.divide(foreseen[name], MIB), "--", color=colour, label=f"{name}, formula")
    axis.plot(lengths, np.divide(found[name], MIB), "o", color=colour, label=f"{name}, measured")
axis.set(xlabel="N, snippets in the video", ylabel="peak of activations (MiB)", xticks=lengths)
axis.set_ylim(bottom=0)
axis.grid(alpha=0.3)
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
run.show(figure, "sweep", "Activations over N: plain grows in proportion, three passes stay level")

# %% sweep-see [markdown] tags=["slide-more"]
# **What to see.** One line climbs with N; the other becomes flat where the video is longer than a
# chunk.

# %% step-text [markdown] tags=["slide"]
# **A whole step** holds more: weights, gradients, the optimiser's state ([AdamW](glossary.md#AdamW)
# keeps two numbers per weight), the frames, the detector's activations. `plan` predicts all of it
# by running the step on *fake tensors*, shapes without numbers; `measure` watches a real one. A
# chunk as long as the video stands for plain training.

# %% step
from etadlite.memory import measure
from etadlite.memory.plan import plan
from etadlite.training.loop import loader, make_optimizer
from etadlite.training.step import train_step


def planned_and_measured(chunk_size):
    changes = [f"encoder.chunk_size={chunk_size}", "training.batch_size=1", "device=cpu"]
    chosen = settings.changed(changes)
    system = System(chosen).train()
    optimizer = make_optimizer(system, chosen.training)
    batch = next(iter(loader(open_split(chosen, training=True), chosen, training=True)))
    train_step(system, batch, optimizer, chosen)  # the first step makes the optimiser's state
    with measure(system, optimizer, batch.inputs) as seen:
        train_step(system, batch, optimizer, chosen)
    return plan(chosen).rows, seen.rows


bars, step_ratios = {}, {}
for name, size in (("all at once", N), (f"chunks of {chunk_size}", chunk_size)):
    ahead, seen = planned_and_measured(size)
    bars |= {f"{name},\npredicted": ahead, f"{name},\nmeasured": seen}
    step_ratios[name] = seen.total / ahead.total
    print(f"{name}: {seen.total / MIB:.1f} MiB, measured / predicted {step_ratios[name]:.3f}")
assert max(abs(ratio - 1) for ratio in step_ratios.values()) < 0.1

# %% step-picture tags=["slide-more"]
from etadlite.viz.memory import draw_memory

alt = "Stacked bars of the memory of a step, predicted beside measured, all at once and in chunks"
run.show(draw_memory(bars), "step", alt)

# %% step-see [markdown] tags=["slide-more"]
# **What to see.** Prediction and measurement agree. The activations are more than section 3
# counted, because the backward pass itself needs room while it works.

# %% dial-text [markdown] tags=["slide"]
# **The paper's size.** The prediction needs neither data nor a graphics card. So what does
# R(2+1)D-34 need for 4 videos of 128 snippets of 16 frames of 112×112 pixels, two stages frozen and
# 30 % of the snippets replayed? We compare it with the 8 GiB of a laptop's graphics card.

# %% dial tags=["slide-more"]
from etadlite.presets import preset
from etadlite.viz.widgets import memory_dial

changes = ["device=cuda", "training.precision=fp32", "sampling.snippet_ratio=0.3"]
paper, budget = preset("e2e_anet_tsp", changes), 8 * 2**30
paper_gib = {}
for size in (4 * 128, 4):
    rows = plan(paper.changed([f"encoder.chunk_size={size}"])).rows
    paper_gib[size] = rows.total / 2**30
    fits = "fits" if rows.total <= budget else "does not fit"
    print(f"chunks of {size:3}: {paper_gib[size]:5.1f} GiB on the card, {fits}")
lengths_offered = (128,) if run.profile == "smoke" else (64, 128, 256)
offered = {"batches": (1, 4, 16), "snippets": lengths_offered, "chunks": (1, 4, 16, 64, 512)}
run.explore(memory_dial(paper, budget, **offered), "dial")

# %% dial-see [markdown] tags=["slide-more"]
# **What to see.** In JupyterLab, move the sliders. Without a running kernel you see four pictures:
# the first is the paper's setting, and each other one moves one dial. The *chunk* decides. All 512
# snippets at once take 32 GiB, four times the card, and most of it already in pass 1, without
# gradient. More videos or longer videos add little, except to the kept prefix.

# %% time-text [markdown] tags=["slide"]
# ## 8 · One experiment on one dial: how large a chunk?
#
# Small chunks save memory. What do they cost in time? Counted in operations, every chunk size costs
# the same: once forward (1) and once with gradient (1 + 2), which makes 4, against 3 for plain
# training. Guess the curve's shape before you run the cell.

# %% time
probe = tiny_encoder().to(run.device)
timed = snippets[: 32 if run.profile == "smoke" else N].to(run.device)


def encoding_step(module, frames):
    def work():
        module(frames).sum().backward()
        next(probe.parameters()).grad.sum().item()  # waits until a graphics card is done, too

    return work


chunk_sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size <= len(timed)]
times = 1 if run.profile == "smoke" else 5
ways = {"plain": encoding_step(probe, timed)}
for size in chunk_sizes:
    ways[size] = encoding_step(SequentialEncoder(probe, size), timed[None])
ways["plain"]()  # the first one is slower
# They take turns, so that whatever else the machine does meets all of them.
turns = [[seconds_of(way, 1) for way in ways.values()] for _ in range(times)]
plain_seconds, *chunk_seconds = np.median(turns, axis=0)
slower = [seconds / plain_seconds for seconds in chunk_seconds]
for size, factor in zip(chunk_sizes, slower, strict=True):
    print(f"chunks of {size:3}: {factor:.2f} times plain training")

# %% time-picture tags=["slide-more"]
figure = Figure(figsize=(9, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
left.plot(chunk_sizes, slower, "o-", color=COLOURS[0], label="measured")
left.axhline(4 / 3, color=COLOURS[7], linestyle="--", label="by operations")
left.set(ylabel="time, plain training = 1", yscale="log", yticks=[1, 2, 4, 8])
left.set(yticklabels=[1, 2, 4, 8], ylim=(0.8, 1.2 * max(slower)))
left.minorticks_off()
left.legend(frameon=False)
right.plot(chunk_sizes, np.multiply(chunk_sizes, one / MIB), "o-", color=COLOURS[3])
right.set_ylabel("activations (MiB)")
for axis in (left, right):
    axis.set_xscale("log", base=2)
    axis.set(xlabel="snippets in a chunk", xticks=chunk_sizes, xticklabels=chunk_sizes)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
alt = "Left: time over the chunk size, steep only for the smallest. Right: memory grows with it"
run.show(figure, "time", alt)

# %% time-see [markdown] tags=["slide-more"]
# **What to see.** Very small chunks are slow: every operation has a fixed cost, and one snippet of
# this tiny encoder hardly covers it. Very large chunks gain nothing and can even lose time, because
# their activations no longer fit into the processor's *cache*. Plain training suffers from this,
# too, so the curve may dip below the dashed line. (It also does so where the machine was busy
# during one of the two measurements: run the cell twice.) One snippet through R(2+1)D-34 is work
# enough, so the paper takes chunks of 4.

# %% compare-text [markdown]
# Here are your guesses, and **what this notebook claims**: features from chunks equal those that
# are encoded at once; at ratio 1 the gradient equals that of plain back-propagation; memory follows
# the formula within 10 %.

# %% compare
index = chunk_sizes.index(chunk_size)
rows = {  # predicted, measured
    "memory": (N / chunk_size, found["plain"][-1] / found["three passes"][-1]),
    "time": (4 / 3, slower[index]),
    "prefix": prefix_share,
}
print(f"{'':8}{'your guess':>12}{'predicted':>12}{'measured':>12}")
for name, values in rows.items():
    texts = ["-" if value is None else f"{value:.2f}" for value in (guess[name], *values)]
    print(f"{name:8}" + "".join(f"{text:>12}" for text in texts))
memory_ratios = [*ratios["plain"], *ratios["three passes"], *step_ratios.values()]
assert chunk_difference < 1e-4
assert max(differences.values()) < 1e-6
assert max(abs(ratio - 1) for ratio in memory_ratios) < 0.1
print("features and gradients are equal; memory is within", end=" ")
print(f"{100 * max(abs(ratio - 1) for ratio in memory_ratios):.1f} % of its prediction")

# %% exercises [markdown]
# ## 9 · Two more exercises

# %% exercise-2-text [markdown]
# ### Exercise 2 · What a 2+1 convolution keeps (easy, 5 minutes)
#
# A 2+1 convolution is a space convolution, norm, ReLU, time convolution, norm, ReLU; nothing is
# strided. `mid` are the planes (channels) after the space convolution, and `out` those after the time
# convolution. `shape` is (F, H, W), and `number` the bytes of a number (2 in half precision). Return
# the bytes that are kept for one snippet, without its input, as one whole number.
#
# <details><summary>Hint</summary>
#
# Section 2 says what the chain rule keeps: the output of every convolution, and that of every ReLU.
# Which of these four have `mid` planes?
#
# </details>


# %% exercise-2
def conv_bytes(mid, out, shape, number=4):
    # BEGIN SOLUTION
    return number * prod(shape) * (2 * mid + 2 * out)
    # END SOLUTION


check("conv_bytes", conv_bytes)

# %% exercise-3-text [markdown]
# ### Exercise 3 · The push as a loss (medium, 10 minutes)
#
# Some tools only know `backward()` on a single number. Return the number whose `backward()` does
# what `features.backward(gradient)` does, for features and gradient [n, C].
#
# <details><summary>Hint</summary>
#
# You want ∂(your number)/∂features = gradient. Which function of x has the slope g everywhere?
#
# </details>


# %% exercise-3
def push(features, gradient):
    # BEGIN SOLUTION
    return (features * gradient).sum()
    # END SOLUTION


check("push", push)

# %% solution-3-note [markdown] tags=["solution"]
# The value of this "loss" means nothing; only its slope does.

# %% full-run [markdown]
# ## 10 · The full run
#
# This notebook trains nothing. The first command runs the notebook. The others predict the memory
# for any settings and budget; the last one also measures a real step:
#
# ```
# etadlite notebook 02_sequential_snippet_encoding -p profile laptop
# etadlite plan e2e_anet_tsp encoder.chunk_size=4 device=cuda --memory 8GiB
# etadlite plan e2e_stickfigures --measure
# ```
#
# Expect ratios within 10 % of 1. The times depend on your machine. Videos in `data_root` are kept.
# `05_end_to_end_activitynet` trains the paper's size.

# %% metrics
run.finish(
    {
        "memory, plain/chunks": rows["memory"][1],
        "time, chunks/plain": slower[index],
        "paper's step (GiB)": paper_gib[4],
    },
    chunk_difference=chunk_difference,
    gradient_differences=differences,
    norms=errors,
    activation_bytes={"lengths": lengths, "predicted": foreseen, "measured": found},
    step_ratios=step_ratios,
    chunks={"sizes": chunk_sizes, "seconds": chunk_seconds, "plain": plain_seconds},
    prefix={"predicted": prefix_share[0], "measured": prefix_share[1]},
)
print("written to out_dir: metrics.json and pictures")

# %% summary [markdown] tags=["slide"]
# ## Summary
#
# - R(2+1)D looks at space, then at time. Early stages cost time and memory, late ones hold the
#   weights.
# - Autograd keeps the output of every convolution and ReLU: for all snippets in a plain pass, and
#   for one chunk at a time in three passes.
# - Features from chunks are the true ones as long as snippets do not see each other: batch norm
#   stays in eval mode.
# - Pushing the features' gradient through a second encoding gives the *same* gradient for a third
#   more operations, or for fewer where a frozen prefix is kept.

# %% limits [markdown] tags=["slide-more"]
# ## Limits
#
# The timings come from one machine and a tiny encoder. The memory counts tensors only: what an
# operation borrows, or what the allocator of a graphics card holds in reserve, comes on top. An
# encoder with dropout must draw the *same* random numbers in pass 3 as in pass 1:
# `SequentialEncoder` sees to it, our code does not.

# %% references [markdown]
# ## References
#
# - S. Liu et al., *ETAD: Training Action Detection End to End on a Laptop*, CVPR Workshops 2023,
#   [arXiv:2205.07134](https://arxiv.org/abs/2205.07134): sequential encoding.
# - D. Tran et al., *A Closer Look at Spatiotemporal Convolutions for Action Recognition*, CVPR
#   2018: R(2+1)D.
# - T. Chen et al., *Training Deep Nets with Sublinear Memory Cost*, 2016,
#   [arXiv:1604.06174](https://arxiv.org/abs/1604.06174): computing twice to keep less.

# %% questions-text [markdown]
# ## Questions
#
# Five questions have choices, and each choice is explained. Three questions are to be answered in
# words; write your answer before you unfold what counts. In JupyterLab, run the cell and press the
# buttons.

# %% questions tags=["alone"]
from etadlite.course.quiz import show_quiz

show_quiz("02_sequential_snippet_encoding")
