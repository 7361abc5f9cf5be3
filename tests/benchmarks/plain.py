"""Plain formulations, told step by step, that the fast ones are compared with."""

import math


def overlap(a, b):
    """Temporal IoU of two segments; 0 for two empty ones."""
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return shared / union if union > 0 else 0.0


def mean_average_precision(truth, predictions, threshold):
    """Mean average precision at one threshold.

    Args:
        truth: video -> (segment, label) of its actions.
        predictions: video -> (segment, label, score) of its predictions.
        threshold: tIoU from which a prediction takes an action.
    """
    labels = sorted({label for actions in truth.values() for _, label in actions})
    precisions = []
    for label in labels:
        free = {v: [s for s, name in actions if name == label] for v, actions in truth.items()}
        total = sum(map(len, free.values()))
        ranked = [
            (score, video, segment)
            for video, items in predictions.items()
            for segment, name, score in items
            if name == label
        ]
        ranked.sort(key=lambda item: -item[0])
        curve, hits = [], 0
        for rank, (_, video, segment) in enumerate(ranked, start=1):
            best = None
            for i, other in enumerate(free[video]):
                value = overlap(segment, other)
                if value >= threshold and (best is None or value >= best[0]):
                    best = (value, i)
            if best is not None:
                free[video].pop(best[1])
                hits += 1
            curve.append((hits / total, hits / rank))
        area, highest = 0.0, 0.0
        for i in reversed(range(len(curve))):
            highest = max(highest, curve[i][1])
            area += (curve[i][0] - (curve[i - 1][0] if i else 0.0)) * highest
        precisions.append(area)
    return sum(precisions) / len(precisions)


def soft_nms(segments, scores, sigma, max_segments, min_score=0.0):
    """Gaussian soft-NMS with a list from which the best is taken: picks and lowered scores."""
    left = dict(enumerate(scores))
    picks, kept = [], []
    while left and len(picks) < max_segments:
        best = max(left, key=lambda i: (left[i], -i))
        picks.append(best)
        kept.append(left.pop(best))
        for i in list(left):
            left[i] *= math.exp(-(overlap(segments[i], segments[best]) ** 2) / sigma)
            if left[i] < min_score:
                del left[i]
    return picks, kept
