"""Plausible wrong answers to the exercises of 04_proposal_sampling, with the hints they shall get.

Exercise -> (wrong answer, a part of the hint).
"""

from math import ceil, floor, log

import torch

from etadlite.base.segments import tiou
from etadlite.sampling.proposals import random_proposals


def one_by_duration(durations):
    return 1 / durations / (1 / durations).sum()


def not_shared_out(durations):
    octave = (durations + 0.5).log2().long()
    return 1 / octave.bincount()[octave]


def over_all_octaves(durations):
    octave = (durations + 0.5).log2().long()
    size = octave.bincount()
    return 1 / size[octave] / len(size)


def rounded_octaves(durations):
    octave = durations.log2().round().long()
    size = octave.bincount()
    return 1 / size[octave] / (size > 0).sum()


def every_duration_alike(durations):
    size = durations.long().bincount()
    return 1 / size[durations.long()] / (size > 0).sum()


def first_action_only(context, count):
    luck = context.draws.rand(len(context.proposals))
    for own, actions in zip(luck, context.actions, strict=True):
        if len(actions):
            own[tiou(actions[0], context.proposals).argmax()] = 2
    return context.proposals[luck.topk(count, dim=1).indices]


def put_in_front(context, count):
    picked = context.proposals[:count].repeat(len(context.draws), 1, 1)
    for own, actions in zip(picked, context.actions, strict=True):
        if len(actions):
            best = tiou(actions[:, None], context.proposals).argmax(dim=1)
            own[-len(best) :] = context.proposals[best]
    return picked


def by_fit_alone(context, count):
    fit = torch.stack(
        [
            tiou(actions[:, None], context.proposals).amax(dim=0)
            if len(actions)
            else torch.zeros(len(context.proposals))
            for actions in context.actions
        ]
    )
    return context.proposals[fit.topk(count, dim=1).indices]


def the_actions_themselves(context, count):
    picked = random_proposals(context, count).clone()
    for own, actions in zip(picked, context.actions, strict=True):
        own[: len(actions)] = actions + 0.25
    return picked


def repeated(context, count):
    return random_proposals(context, 1).expand(-1, count, 2)


WRONG = {
    "epochs_until": [
        (lambda ratio, share: ceil(share / ratio), "do misses multiply?"),
        (lambda ratio, share: log(1 - share) / log(1 - ratio), "after two epochs"),
        (lambda ratio, share: floor(log(1 - share) / log(1 - ratio)), "after two epochs"),
        (lambda ratio, share: floor(log(1 - share) / log(1 - ratio)) + 1, "one epoch draws half"),
    ],
    "scale_chances": [
        (lambda durations: [1.0] * len(durations), "should add up to 1"),
        (lambda durations: durations.new_ones(len(durations)), "should add up to 1"),
        (not_shared_out, "number of octaves that occur"),
        (one_by_duration, "share the first octave's half"),
        (every_duration_alike, "2 and 3 cells are the same octave"),
        (rounded_octaves, "2 and 3 cells are the same octave"),
        (over_all_octaves, "number of octaves that occur"),
    ],
    "with_positives": [
        (lambda context, count: random_proposals(context, count)[0], "have the shape"),
        (random_proposals, "is missing from your picks"),
        (first_action_only, "is missing from your picks"),
        (by_fit_alone, "other draws should give other picks"),
        (put_in_front, "other draws should give other picks"),
        (the_actions_themselves, "should be one of context.proposals"),
        (repeated, "picked twice"),
    ],
}
