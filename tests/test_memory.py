"""Activation memory: what is counted, and that sequential encoding does not grow with N."""

import pytest
import torch
from torch import nn

from etadlite.encoders import tiny_encoder
from etadlite.model.sequential_encoder import SequentialEncoder
from etadlite.training.activations import SavedActivations


def test_a_product_keeps_both_factors_until_the_backward_pass():
    a, b = (torch.randn(100, requires_grad=True) for _ in range(2))
    with SavedActivations() as saved:
        loss = (a * b).sum()
        assert saved.live_bytes == saved.peak_bytes == 2 * 100 * 4
        loss.backward()
    assert saved.live_bytes == 0
    assert saved.peak_bytes == 2 * 100 * 4


def test_a_chain_of_sigmoids_keeps_every_output():
    x = torch.randn(50, 4, dtype=torch.float64, requires_grad=True)
    with SavedActivations() as saved:
        y = x
        for _ in range(5):
            y = y.sigmoid()
        y.sum().backward()
    assert saved.peak_bytes == 5 * 50 * 4 * 8
    assert saved.live_bytes == 0


def test_a_storage_kept_twice_counts_once_and_views_count_their_whole_storage():
    x = torch.randn(10, 10, requires_grad=True)
    with SavedActivations() as saved:
        loss = (x * x).sum() + (x[:2].T.exp() * x[2:4].T).sum()
        assert saved.live_bytes == 100 * 4 + 20 * 4  # x in all its views, and the exponential
        loss.backward()


def test_weights_buffers_and_given_tensors_do_not_count():
    layer = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8).eval())
    x = torch.randn(3, 8)
    with SavedActivations(layer) as counting_inputs:
        layer(x).sum().backward()
    with SavedActivations(layer, x) as without_inputs:
        layer(x).sum().backward()
    with SavedActivations() as everything:
        layer(x).sum().backward()
    assert counting_inputs.peak_bytes - without_inputs.peak_bytes == 3 * 8 * 4
    assert everything.peak_bytes > counting_inputs.peak_bytes


def test_unused_tensors_are_freed_and_nothing_is_counted_outside():
    x = torch.randn(1000, requires_grad=True)
    with SavedActivations() as saved:
        y = x.sigmoid()
        assert saved.live_bytes == 4000
        del y
        assert saved.live_bytes == 0
        with torch.no_grad():
            x.sigmoid()
    x.sigmoid().sum().backward()
    assert saved.peak_bytes == 4000


def test_gradients_are_the_same_inside_and_outside():
    layer = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.randn(3, 8)
    layer(x).sum().backward()
    outside = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    with SavedActivations(layer):
        layer(x).sum().backward()
    for inside, other in zip(layer.parameters(), outside, strict=True):
        assert torch.equal(inside.grad, other)


def test_second_derivatives_are_right_inside():
    x = torch.randn(20, dtype=torch.float64, requires_grad=True)
    with SavedActivations() as saved:
        (first,) = torch.autograd.grad(x.sigmoid().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        del first
    s = x.detach().sigmoid()
    torch.testing.assert_close(second, s * (1 - s) * (1 - 2 * s))
    assert saved.live_bytes == 0


SNIPPETS = (8, 16, 32, 64)


def peaks(encode, encoder):
    """Peak bytes of a training step for each number of snippets."""
    head, found = nn.Conv1d(48, 4, 3), []
    for snippets in SNIPPETS:
        frames = torch.randint(0, 256, (1, snippets, 3, 8, 24, 24), dtype=torch.uint8)
        with SavedActivations(encoder, head, frames) as saved:
            head(encode(frames)).square().sum().backward()
        assert saved.live_bytes == 0
        found.append(saved.peak_bytes)
    return found


@pytest.mark.parametrize("ratio", [0.3, 1.0])
def test_sequential_encoding_needs_the_memory_of_one_chunk_whatever_the_length(ratio):
    encoder = tiny_encoder(pretrained=False)
    found = peaks(SequentialEncoder(encoder, 2, ratio=ratio), encoder)
    # The features themselves, 48 floats a snippet, are all that grows.
    features = [48 * 4 * snippets for snippets in SNIPPETS]
    without = [peak - size for peak, size in zip(found, features, strict=True)]
    assert without == [without[0]] * len(SNIPPETS)
    assert found[-1] < 1.05 * found[0]


def test_plain_encoding_needs_memory_in_proportion_to_the_length():
    encoder = tiny_encoder(pretrained=False)

    def plain(frames):
        return encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)

    found = peaks(plain, encoder)
    for snippets, peak in zip(SNIPPETS, found, strict=True):
        assert peak == pytest.approx(found[0] * snippets / SNIPPETS[0], rel=0.01)
    sequential = peaks(SequentialEncoder(encoder, 2), encoder)
    assert found[-1] > 20 * sequential[-1]
