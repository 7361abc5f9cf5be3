"""Plausible wrong answers to 06_end_to_end_thumos: exercise -> (wrong answer, hint's part)."""

import torch


def in_place(scores, overlaps, labels, label, sigma):
    scores *= torch.where(labels == label, torch.exp(-(overlaps**2) / sigma), 1.0)
    return scores


def of_all_classes(scores, overlaps, labels, label, sigma):
    return scores * torch.exp(-(overlaps**2) / sigma)


def not_squared(scores, overlaps, labels, label, sigma):
    return torch.where(labels == label, scores * torch.exp(-overlaps / sigma), scores)


def hard(scores, overlaps, labels, label, sigma):
    return torch.where((labels == label) & (overlaps >= 0.5), 0.0, scores)


def class_one(scores, overlaps, labels, label, sigma):
    return torch.where(labels == 1, scores * torch.exp(-(overlaps**2) / sigma), scores)


def same_class_alone(scores, overlaps, labels, label, sigma):
    return (scores * torch.exp(-(overlaps**2) / sigma))[labels == label]


WRONG = {
    "seconds_of": [
        (lambda cell, first, stride, offset, fps: first + cell * stride, "is second 10"),
        (lambda cell, first, stride, offset, fps: (first + cell) / fps, "60 frames, 2 s more"),
        (lambda cell, first, stride, offset, fps: (first + cell * stride) / fps, "stands for"),
        (
            lambda cell, first, stride, offset, fps: (first + offset + int(cell) * stride) / fps,
            "between two cells",
        ),
    ],
    "lower": [
        (in_place, "in place"),
        (of_all_classes, "another class should keep"),
        (not_squared, "is the tIoU squared"),
        (hard, "should become 0.80 exp"),
        (class_one, "only the third score"),
        (same_class_alone, "have the shape"),
    ],
}
