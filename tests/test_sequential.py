import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from etadlite.base.draws import Draws
from etadlite.base.errors import InputError
from etadlite.encoders import StagedEncoder, freeze, tiny_encoder
from etadlite.encoders.speed import compile_parts
from etadlite.encoders.staged import STAGES
from etadlite.model.sequential_encoder import SequentialEncoder
from etadlite.sampling.snippets import (
    RANDOM,
    SnippetContext,
    SnippetStrategy,
    random_snippets,
    snippet_count,
)


class Pixels(nn.Module):
    """The smallest encoder: a snippet's mean colours through two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(3, 8), nn.Linear(8, 5)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        colours = frames.to(self.hidden.weight.dtype).mean(dim=(2, 3, 4)) / 255
        return self.out(self.hidden(colours).tanh())


def some_frames(batch: int, snippets: int, size: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (batch, snippets, 3, 2, size, size), dtype=torch.uint8)


def gradients(module: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.requires_grad]


def plain_gradients(encoder: nn.Module, frames: torch.Tensor, head: nn.Module) -> list:
    encoder.zero_grad()
    features = encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)
    head(features).square().sum().backward()
    return gradients(encoder)


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 3), snippets=st.integers(1, 9), chunk=st.integers(1, 30))
def test_ratio_one_equals_plain_back_propagation(batch, snippets, chunk):
    encoder, head = Pixels().double(), nn.Conv1d(5, 4, 3, padding=1).double()
    frames = some_frames(batch, snippets)
    expected = plain_gradients(encoder, frames, head)
    encoder.zero_grad()
    head(SequentialEncoder(encoder, chunk)(frames)).square().sum().backward()
    for ours, plain in zip(gradients(encoder), expected, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_ratio_one_equals_plain_back_propagation_for_the_tiny_encoder(chunk):
    encoder, head = tiny_encoder(pretrained=False).double(), nn.Conv1d(48, 4, 3).double()
    frames = torch.randint(0, 256, (1, 8, 3, 8, 24, 24), dtype=torch.uint8)
    expected = plain_gradients(encoder, frames, head)
    encoder.zero_grad()
    head(SequentialEncoder(encoder, chunk)(frames)).square().sum().backward()
    for ours, plain in zip(gradients(encoder), expected, strict=True):
        scale = plain.abs().max().clamp(min=1)
        torch.testing.assert_close(ours / scale, plain / scale, atol=1e-10, rtol=1e-10)


def test_the_gradient_is_that_of_the_picked_snippets_alone():
    encoder, head = Pixels().double(), nn.Conv1d(5, 4, 1).double()
    frames = some_frames(1, 6)
    picked = torch.tensor([[1, 4]])
    strategy = SnippetStrategy(lambda context, count: picked)
    sequential = SequentialEncoder(encoder, 2, strategy, ratio=1 / 3)
    head(sequential(frames)).square().sum().backward()
    # Snippets do not mix here, so those not picked could as well not be there.
    ours, expected = gradients(encoder), plain_gradients(encoder, frames[:, [1, 4]], head)
    for mine, plain in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, plain)


def test_features_and_the_head_gradient_do_not_depend_on_the_ratio():
    encoder, head = Pixels(), nn.Conv1d(5, 4, 1)
    frames = some_frames(2, 10)
    seen = []
    for ratio in (0.0, 0.3, 1.0):
        head.zero_grad()
        features = SequentialEncoder(encoder, 4, ratio=ratio)(frames)
        head(features).square().sum().backward()
        seen.append((features.detach(), head.weight.grad.clone()))
    for features, grad in seen[1:]:
        torch.testing.assert_close(features, seen[0][0], rtol=0, atol=0)
        torch.testing.assert_close(grad, seen[0][1], rtol=0, atol=0)


def test_frozen_parameters_get_no_gradient():
    encoder = Pixels()
    encoder.hidden.requires_grad_(False)
    SequentialEncoder(encoder, 2)(some_frames(1, 4)).sum().backward()
    assert encoder.hidden.weight.grad is None
    assert encoder.out.weight.grad.abs().sum() > 0
    encoder.requires_grad_(False)
    assert not SequentialEncoder(encoder, 2)(some_frames(1, 4)).requires_grad


def test_autocast_of_the_first_pass_rules_the_replay():
    encoder, seen = Pixels(), []
    encoder.hidden.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        features = SequentialEncoder(encoder, 4)(some_frames(1, 4))
    features.sum().backward()
    assert features.dtype == torch.float32
    assert seen == [torch.bfloat16] * 2


@given(snippets=st.integers(1, 200), ratio=st.floats(0.01, 1))
def test_picks_are_distinct_snippets_in_order(snippets, ratio):
    count = snippet_count(snippets, ratio)
    assert ratio * snippets - 1e-6 <= count < ratio * snippets + 1
    picked = random_snippets(SnippetContext(Draws([3, 4]), snippets), count)
    assert picked.shape == (2, count)
    assert (picked.diff(dim=1) > 0).all()
    assert int(picked.min()) >= 0
    assert int(picked.max()) < snippets


def test_every_snippet_is_picked_equally_often():
    context = SnippetContext(Draws(range(2000)), 10)
    counts = random_snippets(context, 3).flatten().bincount(minlength=10)
    assert (counts - 600).abs().max() < 5 * (2000 * 0.3 * 0.7) ** 0.5


@pytest.mark.parametrize(("chunk", "ratio"), [(0, 1.0), (4, -0.1), (4, 1.5)])
def test_senseless_arguments_are_refused(chunk, ratio):
    with pytest.raises(InputError, match="must"):
        SequentialEncoder(Pixels(), chunk, ratio=ratio)


def scaled(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference in units of the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


def late(pick=None) -> SnippetStrategy:
    """A strategy that is asked after the detector's backward pass: the largest gradients."""

    def largest(context: SnippetContext, count: int) -> torch.Tensor:
        norms = context.gradient.norm(dim=1)
        return norms.topk(count, dim=1).indices.sort(dim=1).values

    return SnippetStrategy(pick or largest, needs="gradient")


class Small(StagedEncoder):
    """A stem and four stages of one convolution each."""

    def __init__(self, stages: int | None) -> None:
        row = {}
        for name in STAGES:
            inputs = 3 if name == "stem" else 6
            stage = (nn.Conv3d(inputs, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU())
            row[name] = nn.Sequential(*stage)
        super().__init__(row, 6)
        freeze(self, stages)


@pytest.mark.parametrize("keep", ["device", "host", "nothing", "graph"])
@pytest.mark.parametrize("strategy", [RANDOM, late()])
def test_a_kept_prefix_changes_nothing_but_the_work(keep, strategy):
    encoder, frames = Small(2).double(), torch.randint(0, 256, (2, 5, 3, 4, 8, 8)).byte()
    weight = torch.randn(2, 6, 5, dtype=torch.float64)
    runs, suffix = [], []

    def count_runs(module, args, out):
        runs.append(len(args[0]))

    encoder.stem.register_forward_hook(count_runs)
    encoder.layer4.register_forward_hook(lambda module, args, out: suffix.append(len(args[0])))
    sequential = SequentialEncoder(encoder, 2, strategy, 0.4, keep=keep)
    (sequential(frames, Draws([5, 6])) * weight).sum().backward()
    expected_runs = 10 if keep != "nothing" else 14  # 2 of 5 snippets in 2 videos come again
    assert sum(runs) == expected_runs
    assert sum(suffix) == (10 if keep == "graph" else 14)
    picked = strategy.pick(SnippetContext(Draws([5, 6]), 5, gradient=weight), 2)
    found = gradients(encoder)
    encoder.zero_grad()
    rows = frames[torch.arange(2)[:, None], picked].flatten(0, 1)
    pushed = weight.gather(2, picked[:, None].expand(-1, 6, -1)).transpose(1, 2).flatten(0, 1)
    (encoder(rows) * pushed).sum().backward()
    for ours, plain in zip(found, gradients(encoder), strict=True):
        assert scaled(ours, plain) < 1e-10
    assert all(p.grad is None for p in encoder.stem.parameters())


class WithDropout(Pixels):
    """An encoder whose features are random in training; remembers the masks that it drew."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        colours = frames.to(self.hidden.weight.dtype).mean(dim=(2, 3, 4)) / 255
        mask = nn.functional.dropout(torch.ones(len(frames), 8), 0.5, self.training)
        self.seen += zip(colours, mask, strict=True)
        return self.out(self.hidden(colours).tanh() * mask)


@pytest.mark.parametrize("strategy", [RANDOM, late()])
@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_dropout_is_the_same_in_both_passes(strategy, chunk):
    encoder, frames = WithDropout(), some_frames(2, 7)
    sequential = SequentialEncoder(encoder, chunk, strategy, ratio=0.4)
    features = sequential(frames)
    first, encoder.seen = encoder.seen, []
    before = torch.get_rng_state()
    features.square().sum().backward()
    assert torch.equal(before, torch.get_rng_state())  # the replay leaves no trace
    assert len(encoder.seen) >= 6
    for colours, mask in encoder.seen:
        (drawn,) = [m for c, m in first if torch.equal(c, colours)]
        assert torch.equal(mask, drawn)


@pytest.mark.parametrize("keep", ["device", "graph"])
def test_with_dropout_the_gradient_is_that_of_the_features_that_the_detector_saw(keep):
    encoder, frames = WithDropout(), some_frames(1, 6)
    features = SequentialEncoder(encoder, 2, late(), ratio=0.5, keep=keep)(frames)
    features.square().sum().backward()
    masks = {tuple(colours.tolist()): mask for colours, mask in encoder.seen}
    found = gradients(encoder)
    norms = features.detach().norm(dim=1)
    picked = norms.topk(3, dim=1).indices.sort(dim=1).values[0]
    encoder.zero_grad()
    colours = frames[0, picked].float().mean(dim=(2, 3, 4)) / 255
    mask = torch.stack([masks[tuple(c.tolist())] for c in colours])
    encoder.out(encoder.hidden(colours).tanh() * mask).square().sum().backward()
    for ours, plain in zip(found, gradients(encoder), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("keep", ["device", "nothing", "graph"])
def test_half_precision_with_many_chunks_and_a_gradient_scaler(keep):
    encoder = Small(1)
    frames, head = torch.randint(0, 256, (1, 6, 3, 4, 8, 8)).byte(), nn.Conv1d(6, 1, 1)
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)

    def step(*, scale: bool) -> list[torch.Tensor]:
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            features = SequentialEncoder(encoder, 2, keep=keep)(frames)
        loss = head(features).square().sum()
        (scaler.scale(loss) if scale else loss).backward()
        if scale:
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        return gradients(encoder)

    plain, with_scaler = step(scale=False), step(scale=True)
    encoder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):  # back-propagation without any chunks
        features = encoder(frames[0]).T[None]
    head(features).square().sum().backward()
    for whole, a, b in zip(gradients(encoder), plain, with_scaler, strict=True):
        assert torch.cosine_similarity(a.flatten(), whole.flatten(), dim=0) > 0.99
        # bf16 has the exponents of fp32: a power of two scales without rounding.
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_the_channels_last_layout_gives_the_same_gradient():
    encoder, frames = Small(1).double(), torch.randint(0, 256, (1, 4, 3, 4, 8, 8)).byte()
    found = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        encoder.to(memory_format=layout).zero_grad()
        SequentialEncoder(encoder, 2)(frames).square().sum().backward()
        found.append(gradients(encoder))
    for ours, plain in zip(*found, strict=True):
        assert scaled(ours, plain) < 1e-10


@given(ratio=st.floats(0.05, 1), snippets=st.integers(1, 12), batch=st.integers(1, 3))
def test_rescaled_weights_are_the_inverse_chances(ratio, snippets, batch):
    encoder = nn.Sequential(nn.Flatten(), Counter()).double()
    sequential = SequentialEncoder(encoder, 3, RANDOM, ratio, rescale=True)
    sequential(some_frames(batch, snippets, size=1)).sum().backward()
    assert encoder[1].weight.grad.item() == pytest.approx(batch * snippets)


class Counter(nn.Module):
    """Gives every snippet the same feature, so that its gradient counts snippets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.weight.expand(len(pixels), 1)


def test_own_gradients_stay_and_are_added_to():
    encoder, frames = Pixels(), some_frames(1, 4)
    SequentialEncoder(encoder, 2)(frames).sum().backward()
    once = gradients(encoder)
    SequentialEncoder(encoder, 2)(frames).sum().backward()
    for first, both in zip(once, gradients(encoder), strict=True):
        torch.testing.assert_close(both, 2 * first)


def test_a_strategy_that_needs_labels_says_so():
    by_labels = SnippetStrategy(lambda context, count: context.actions, needs="labels")
    with pytest.raises(InputError, match="actions"):
        SequentialEncoder(Pixels(), 2, by_labels)(some_frames(1, 4))
    with pytest.raises(InputError, match="rescale"):
        SequentialEncoder(Pixels(), 2, by_labels, rescale=True)


@pytest.mark.slow
@pytest.mark.parametrize("stages", [None, 1])
def test_a_compiled_encoder_gives_the_same_gradient(stages):
    encoder, frames = Small(stages).double(), torch.randint(0, 256, (1, 3, 3, 4, 8, 8)).byte()
    SequentialEncoder(encoder, 2)(frames).square().sum().backward()
    expected = gradients(encoder)
    encoder.zero_grad()
    compile_parts(encoder, backend="aot_eager")
    SequentialEncoder(encoder, 2)(frames).square().sum().backward()
    for ours, plain in zip(gradients(encoder), expected, strict=True):
        assert scaled(ours, plain) < 1e-10
