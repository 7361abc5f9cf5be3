"""Every snippet and proposal strategy keeps its promises, and its probabilities are exact."""

from itertools import combinations
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from etadlite.base.draws import Draws
from etadlite.base.errors import InputError
from etadlite.base.segments import tiou
from etadlite.config import SamplingSettings
from etadlite.detector import valid_proposals
from etadlite.model.sequential_encoder import SequentialEncoder
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.sampling.dpp import RIDGE, sample_kdpp
from etadlite.sampling.farthest import farthest_points
from etadlite.sampling.proposals import PROPOSAL_STRATEGIES, ProposalContext
from etadlite.sampling.snippets import (
    BOUNDARY_REACH,
    RANDOM,
    SNIPPET_STRATEGIES,
    SnippetContext,
    boundary,
    proportional_probabilities,
    snippet_count,
    systematic_sample,
)
from etadlite.training.targets import BOUNDARY_CELLS

UNBIASED = [name for name, strategy in SNIPPET_STRATEGIES.items() if strategy.unbiased]


def some_actions(seed: int, cells: int) -> torch.Tensor:
    """Return none to three actions [A, 2], which depend on the seed."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(seed % 4, 2, generator=generator) * cells).sort(dim=1).values


def snippet_context(seeds, snippets, channels=5) -> SnippetContext:
    """Make videos that depend on their seeds; some snippets are equal, some have no gradient."""
    features, gradients = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        features.append(torch.randn(channels, snippets, generator=generator))
        if seed % 2:
            features[-1][:, snippets // 2 :] = 1
        gradients.append(torch.randn(channels, snippets, generator=generator).exp())
        gradients[-1][:, : seed % 3 * snippets // 2] = 0
    return SnippetContext(
        Draws(seeds),
        snippets,
        [some_actions(seed, snippets) for seed in seeds],
        torch.stack(features),
        torch.stack(gradients),
    )


@given(st.integers(1, 2000), st.floats(0, 1))
def test_no_fewer_snippets_are_picked_than_the_ratio_says(snippets, ratio):
    count = snippet_count(snippets, ratio)
    assert ratio * snippets - 1e-6 <= count < ratio * snippets + 1
    assert snippet_count(1000, 0.300005) == 301
    assert snippet_count(128, 0.3) == 39


def proposal_context(seeds, cells, max_duration) -> ProposalContext:
    actions = [some_actions(seed, cells) for seed in seeds]
    return ProposalContext(Draws(seeds), valid_proposals(cells, max_duration), actions)


def repeated(context: SnippetContext, times: int) -> SnippetContext:
    """Repeat the first video, each time with other draws."""
    return SnippetContext(
        Draws(range(times)),
        context.snippets,
        context.actions[:1] * times,
        context.features[:1].expand(times, -1, -1),
        context.gradient[:1].expand(times, -1, -1),
    )


def frequencies(picked: torch.Tensor, size: int) -> torch.Tensor:
    return picked.flatten().bincount(minlength=size) / len(picked)


def assert_frequent(measured: torch.Tensor, probability: torch.Tensor, times: int) -> None:
    """Check that frequencies lie within five standard deviations of their probabilities."""
    bound = 5 * (probability * (1 - probability) / times).clamp(min=1e-9).sqrt() + 1 / times
    assert ((measured - probability).abs() <= bound).all(), (measured, probability)


def test_the_settings_list_all_strategies():
    fields = SamplingSettings.model_fields
    assert get_args(fields["snippet_strategy"].annotation) == tuple(SNIPPET_STRATEGIES)
    assert get_args(fields["proposal_strategy"].annotation) == tuple(PROPOSAL_STRATEGIES)


@pytest.mark.parametrize("name", SNIPPET_STRATEGIES)
@settings(max_examples=15)
@given(
    seeds=st.lists(st.integers(0, 999), min_size=1, max_size=3),
    snippets=st.integers(1, 30),
    share=st.floats(0, 1),
)
def test_snippets_are_distinct_and_sorted_and_do_not_depend_on_other_videos(
    name, seeds, snippets, share
):
    pick, count = SNIPPET_STRATEGIES[name].pick, max(1, round(share * snippets))
    picked = pick(snippet_context(seeds, snippets), count)
    assert picked.shape == (len(seeds), count)
    assert picked.dtype == torch.int64
    assert (picked.diff(dim=1) > 0).all()
    assert int(picked.min()) >= 0
    assert int(picked.max()) < snippets
    if name == "kdpp" and seeds[-1] % 2:
        return  # rounding decides which of several equal snippets it picks
    alone = pick(snippet_context(seeds[-1:], snippets), count)
    torch.testing.assert_close(alone[0], picked[-1], rtol=0, atol=0)


@pytest.mark.parametrize("count", [1, 5, 12])
@pytest.mark.parametrize("name", UNBIASED)
def test_snippets_are_picked_with_their_probabilities(name, count):
    strategy, times = SNIPPET_STRATEGIES[name], 1000
    for seed in (1, 2, 3, 4):  # none, some or all have no gradient; none to three actions
        context = repeated(snippet_context([seed], 12), times)
        probability = strategy.inclusion(context, count)[0]
        assert (probability > 0).all()
        assert probability.max() <= 1 + 1e-6
        assert float(probability.sum()) == pytest.approx(count, rel=1e-5)
        assert_frequent(frequencies(strategy.pick(context, count), 12), probability, times)


def test_a_grid_has_equal_steps_and_a_block_holds_neighbours():
    context = snippet_context(range(50), 40)
    steps = SNIPPET_STRATEGIES["grid"].pick(context, 8).diff(dim=1)
    assert (steps == 5).all()
    steps = SNIPPET_STRATEGIES["grid"].pick(context, 9).diff(dim=1)
    assert set(steps.unique().tolist()) == {4, 5}
    steps = SNIPPET_STRATEGIES["block"].pick(context, 8).diff(dim=1)
    assert ((steps == 1).sum(dim=1) >= 6).all()  # at most one gap: a block may go on at the start
    assert set(steps.unique().tolist()) == {1, 33}


@pytest.mark.parametrize("name", ["foreground", "boundary", "background"])
def test_label_strategies_draw_their_share(name):
    actions = torch.tensor([[10.0, 30.0]])
    groups = {
        "foreground": set(range(10, 30)),
        "boundary": {9, 10, 29, 30, 8, 11, 28, 31},
        "background": {*range(10), *range(30, 40)},
    }
    context = SnippetContext(Draws(range(400)), 40, [actions] * 400)
    picked = SNIPPET_STRATEGIES[name].pick(context, 6)
    inside = torch.isin(picked, torch.tensor(sorted(groups[name]))).sum(dim=1)
    assert set(inside.tolist()) == {4, 5}  # 0.75 * 6 is 4.5
    assert float(inside.float().mean()) == pytest.approx(0.75 * 6, abs=0.15)


def test_a_boundary_reaches_as_far_as_in_the_targets_of_the_detector():
    actions, cells = torch.tensor([[10.0, 29.95]]), 40
    middle = torch.arange(cells)[:, None] + 0.5
    near = boundary(actions, middle)
    assert near.nonzero().flatten().tolist() == [8, 9, 10, 11, 28, 29, 30]
    assert BOUNDARY_REACH == BOUNDARY_CELLS / 2


def test_a_group_that_is_too_small_is_filled_up_from_the_other():
    everywhere, nowhere = torch.tensor([[0.0, 9.0]]), torch.zeros(0, 2)
    for name in ("foreground", "boundary", "background"):
        context = SnippetContext(Draws([1, 2]), 9, [everywhere, nowhere])
        assert SNIPPET_STRATEGIES[name].pick(context, 7).shape == (2, 7)


def test_farthest_points_equal_a_plain_loop():
    points = torch.randn(3, 4, 20)
    picked = farthest_points(points, torch.tensor([3, 0, 19]), 12)
    for video, first in enumerate((3, 0, 19)):
        chosen = [first]
        while len(chosen) < 12:
            distance = [
                min(float((points[video, :, i] - points[video, :, j]).norm()) for j in chosen)
                for i in range(20)
            ]
            chosen.append(max(range(20), key=distance.__getitem__))
        assert picked[video].tolist() == chosen


def subset_probabilities(similarity: torch.Tensor, count: int) -> dict[tuple[int, ...], float]:
    """Enumerate the sets: the probability of a set is proportional to its determinant."""
    sets = list(combinations(range(len(similarity)), count))
    weights = torch.stack([torch.linalg.det(similarity[list(s)][:, list(s)]) for s in sets])
    return dict(zip(sets, (weights / weights.sum()).tolist(), strict=True))


@pytest.mark.parametrize(("rank", "count"), [(6, 1), (6, 3), (6, 6), (2, 2), (2, 4)])
def test_a_kdpp_draws_sets_in_proportion_to_their_determinants(rank, count):
    times = 6000
    factors = torch.randn(6, rank, dtype=torch.float64)
    similarity = factors @ factors.T / rank
    # Two places that hold no item are never drawn.
    padded = torch.zeros(8, 8, dtype=torch.float64)
    padded[1:7, 1:7] = similarity
    counts = torch.full((times,), count)
    picked = sample_kdpp(padded.expand(times, -1, -1), counts, Draws.fresh(times).rand(2, 8))
    assert not picked[:, [0, 7]].any()
    assert (picked.sum(dim=1) == count).all()
    probabilities = subset_probabilities(
        similarity + RIDGE * torch.eye(6, dtype=torch.float64), count
    )
    drawn = picked[:, 1:7].nonzero()[:, 1].unflatten(0, (times, count))
    for chosen, probability in probabilities.items():
        share = (drawn == torch.tensor(chosen)).all(dim=1).double().mean()
        assert_frequent(share, torch.tensor(probability), times)


def test_kdpps_draw_sets_of_several_sizes_at_once():
    similarity = torch.eye(5).expand(4, -1, -1)
    picked = sample_kdpp(similarity, torch.tensor([0, 1, 3, 5]), torch.rand(4, 2, 5))
    assert picked.sum(dim=1).tolist() == [0, 1, 3, 5]


def test_a_kdpp_of_equal_features_draws_all_with_equal_probabilities():
    context = SnippetContext(Draws(range(4000)), 6, features=torch.ones(4000, 3, 6))
    picked = SNIPPET_STRATEGIES["kdpp"].pick(context, 4)
    assert_frequent(frequencies(picked, 6), torch.full((6,), 4 / 6), 4000)


@pytest.mark.parametrize("name", ["farthest", "kdpp"])
def test_strategies_on_features_avoid_similar_snippets(name):
    """Of four kinds of snippets, each of them repeated, four picks take one of each kind."""
    features = torch.randn(1, 8, 4).repeat(50, 1, 5)
    features += 1e-3 * torch.randn_like(features)
    picked = SNIPPET_STRATEGIES[name].pick(SnippetContext(Draws(range(50)), 20, None, features), 4)
    assert ((picked % 4).sort(dim=1).values == torch.arange(4)).all()


@pytest.mark.parametrize("name", ["farthest", "kdpp", "gradient_norm"])
def test_strategies_accept_nan_and_infinity(name):
    values = torch.randn(2, 3, 10)
    values[0, 1, 4], values[0, 0, 7], values[1] = torch.nan, torch.inf, torch.nan
    context = SnippetContext(Draws([1, 2]), 10, None, values, values)
    assert (SNIPPET_STRATEGIES[name].pick(context, 4).diff(dim=1) > 0).all()


@settings(max_examples=60)
@given(
    sizes=st.lists(st.floats(0, 2.0**60, width=32, allow_subnormal=False), min_size=1, max_size=30),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_probabilities_are_proportional_and_picks_are_distinct(sizes, share, seed):
    count = max(1, round(share * len(sizes)))
    probabilities = proportional_probabilities(torch.tensor([sizes]), count)[0]
    assert float(probabilities.sum()) == pytest.approx(count)
    assert ((probabilities > 0) & (probabilities <= 1)).all()
    floor = max(sizes) * 1e-6
    wanted = torch.tensor([max(size, floor) if floor else 1.0 for size in sizes]).double()
    below = probabilities < 1
    ratio = probabilities[below] / wanted[below]
    assert ratio.numel() == 0 or float(ratio.max() / ratio.min()) == pytest.approx(1, rel=1e-5)
    if ratio.numel():  # with the ratio of the others, the certain ones would exceed 1
        assert (wanted[~below] * ratio.max() >= 1 - 1e-5).all()
    draw = Draws([seed]).rand(len(sizes) + 1)
    assert len(set(systematic_sample(probabilities[None], draw, count)[0].tolist())) == count


class Linear(nn.Module):
    """The smallest encoder: a matrix times the mean colours of a snippet."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 4)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.out(frames.float().mean(dim=(2, 3, 4)) / 255)


def mean_gradient(strategy, frames, head, actions, *, rescale, ratio, times):
    """Return mean and standard error of the encoder's flat gradient over many draws."""
    encoder = Linear()
    encoder.load_state_dict({"out.weight": torch.ones(4, 3), "out.bias": torch.zeros(4)})
    module = SequentialEncoder(encoder, 20, strategy, ratio, rescale=rescale)
    seen = []
    for seed in range(times):
        encoder.zero_grad()
        (module(frames, Draws([seed]), [actions]) * head).sum().backward()
        seen.append(encoder.out.weight.grad.flatten().double())
    seen = torch.stack(seen)
    return seen.mean(dim=0), seen.var(dim=0, correction=0).div(times).sqrt()


@pytest.mark.parametrize("name", UNBIASED)
def test_the_rescaled_gradient_equals_the_full_one_on_average(name):
    frames = torch.randint(0, 256, (1, 8, 3, 1, 2, 2), dtype=torch.uint8)
    head = torch.randn(1, 4, 8) * torch.arange(8)  # norms differ a lot
    actions = torch.tensor([[2.0, 5.0]])
    full, _ = mean_gradient(RANDOM, frames, head, actions, rescale=False, ratio=1.0, times=1)
    mean, error = mean_gradient(
        SNIPPET_STRATEGIES[name], frames, head, actions, rescale=True, ratio=0.375, times=300
    )
    assert ((mean - full).abs() <= 5 * error + 1e-5 * full.abs()).all()


def test_without_rescaling_the_gradient_is_the_full_one_times_the_ratio_on_average():
    frames = torch.randint(0, 256, (1, 8, 3, 1, 2, 2), dtype=torch.uint8)
    head = torch.randn(1, 4, 8)
    full, _ = mean_gradient(RANDOM, frames, head, None, rescale=False, ratio=1.0, times=1)
    mean, error = mean_gradient(RANDOM, frames, head, None, rescale=False, ratio=0.375, times=500)
    assert ((mean - 0.375 * full).abs() <= 5 * error).all()
    assert ((mean - full).abs() > 5 * error).any()


def test_the_gradient_norm_strategy_varies_less_than_random():
    frames = torch.randint(0, 256, (1, 20, 3, 1, 2, 2), dtype=torch.uint8)
    head = torch.randn(1, 4, 20) * (torch.arange(20) % 7 == 0)
    errors = [
        mean_gradient(strategy, frames, head, None, rescale=True, ratio=0.2, times=200)[1].sum()
        for strategy in (SNIPPET_STRATEGIES["gradient_norm"], RANDOM)
    ]
    assert errors[0] < 0.1 * errors[1]


def test_settings_reach_the_encoder(tiny):
    def encoder(*assignments: str) -> SequentialEncoder:
        return System(preset("e2e_stickfigures", [*tiny.assignments, *assignments])).encoder

    assert not encoder().rescale
    assert encoder("sampling.snippet_strategy=grid", "sampling.rescale=true").rescale
    assert encoder("sampling.snippet_strategy=gradient_norm").rescale
    with pytest.raises(InputError, match="probabilities"):
        encoder("sampling.snippet_strategy=kdpp", "sampling.rescale=true")
    label = encoder("sampling.snippet_strategy=boundary")
    with pytest.raises(InputError, match="needs the actions"):
        label(torch.zeros(1, 16, 3, 8, 24, 24, dtype=torch.uint8))


@pytest.mark.parametrize("name", PROPOSAL_STRATEGIES)
@settings(max_examples=15)
@given(
    seeds=st.lists(st.integers(0, 999), min_size=1, max_size=3),
    cells=st.integers(1, 20),
    max_duration=st.integers(1, 20),
    share=st.floats(0, 1),
)
def test_proposals_are_distinct_and_do_not_depend_on_other_videos(
    name, seeds, cells, max_duration, share
):
    pick, context = PROPOSAL_STRATEGIES[name], proposal_context(seeds, cells, max_duration)
    valid = {tuple(proposal) for proposal in context.proposals.tolist()}
    count = max(1, round(share * len(valid)))
    picked = pick(context, count)
    assert picked.shape == (len(seeds), count, 2)
    for video in picked.tolist():
        chosen = {tuple(proposal) for proposal in video}
        assert len(chosen) == count
        assert chosen <= valid
    alone = pick(proposal_context(seeds[-1:], cells, max_duration), count)
    torch.testing.assert_close(alone[0], picked[-1], rtol=0, atol=0)


def test_grid_proposals_are_a_lattice():
    picked = PROPOSAL_STRATEGIES["grid"](proposal_context(range(20), 128, 128), 495)
    for video in picked:
        length = video[:, 1] - video[:, 0]
        rows = length.unique()
        assert (rows.diff() == 4).all()  # the square root of 8,256 / 495 is 4.08
        for row in rows[rows < 100]:
            starts = video[length == row, 0].sort().values
            assert set(starts.diff().tolist()) <= {4.0, 5.0} or len(starts) < 2
    assert len({tuple(video[0].tolist()) for video in picked}) > 4  # shifted at random


def test_block_proposals_are_connected():
    for count in (1, 7, 120):
        picked = PROPOSAL_STRATEGIES["block"](proposal_context(range(5), 32, 20), count)
        for video in picked.tolist():
            cells = {(start, end - start) for start, end in video}
            front = [cells.pop()]
            while front:
                start, length = front.pop()
                near = {(s, d) for s, d in cells if max(abs(s - start), abs(d - length)) == 1}
                cells -= near
                front += near
            assert not cells


def shares(bins: torch.Tensor, number: int) -> list[int]:
    return bins.long().bincount(minlength=number).tolist()


def test_iou_balanced_proposals_have_equal_shares():
    actions = torch.tensor([[20.0, 60.0], [70.5, 90.0]])
    context = ProposalContext(Draws([1, 2]), valid_proposals(128, 128), [actions, actions[:0]])
    picked = PROPOSAL_STRATEGIES["iou_balanced"](context, 203)
    best = tiou(picked[0][:, None], actions).amax(dim=1)
    counts = shares((best * 5).clamp(max=4.99), 5)
    everything = tiou(context.proposals[:, None], actions).amax(dim=1)
    sizes = shares((everything * 5).clamp(max=4.99), 5)
    assert min(sizes) >= 40  # so that none is too small
    assert sorted(counts) == [40, 40, 41, 41, 41]


def test_scale_balanced_proposals_have_equal_shares():
    picked = PROPOSAL_STRATEGIES["scale_balanced"](proposal_context([5, 6], 128, 128), 495)
    for video in picked:
        counts = shares((video[:, 1] - video[:, 0] + 0.5).log2().floor(), 8)
        assert counts[7] == 1  # the only one of 128 cells
        assert sorted(counts[:7]) == [70, 70, 70, 71, 71, 71, 71]


@pytest.mark.parametrize(("name", "factor"), [("farthest", 1.3), ("kdpp", 1.05)])
def test_proposals_lie_further_apart_than_random_ones(name, factor):
    context = proposal_context(range(10), 64, 64)

    def nearest(name: str) -> float:
        picked = PROPOSAL_STRATEGIES[name](context, 120)
        length = (picked[..., 1] - picked[..., 0]).log() / torch.tensor(64.0).log()
        points = torch.stack(((picked.mean(dim=-1) - 0.5) / 63, length), dim=-1)
        apart = torch.cdist(points, points) + 9 * torch.eye(120)
        return float(apart.amin(dim=-1).mean())

    assert nearest(name) > factor * nearest("random")


@pytest.mark.parametrize("name", ["random", "grid", "farthest", "kdpp", "scale_balanced"])
def test_every_proposal_can_be_picked(name):
    picked = PROPOSAL_STRATEGIES[name](proposal_context(range(600), 8, 5), 12)
    seen = {tuple(proposal) for proposal in picked.flatten(0, 1).tolist()}
    assert len(seen) == len(valid_proposals(8, 5))
