import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from etadlite.draws import Draws
from etadlite.encoders import tiny_encoder
from etadlite.errors import InputError
from etadlite.sampling import SnippetContext, SnippetStrategy, random_snippets, snippet_count
from etadlite.training.sequential import SequentialEncoder


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
