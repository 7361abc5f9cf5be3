"""Plausible wrong answers to 05_end_to_end_activitynet: exercise -> (wrong answer, hint's part)."""

WRONG = {
    "hours_left": [
        (lambda videos, batch, epochs, s: videos * epochs * s / 3600, "takes a whole batch"),
        (lambda videos, batch, epochs, s: videos // batch * s / 3600, "sees all videos again"),
        (lambda videos, batch, epochs, s: videos // batch * epochs * s / 3600, "a smaller one"),
        (lambda videos, batch, epochs, s: -(-videos * epochs // batch) * s / 3600, "its own"),
        (lambda videos, batch, epochs, s: -(-videos // batch) * epochs * s, "is it in seconds"),
    ],
    "fuse": [
        (lambda scores, classes, k: scores * classes.max(), "have the shape"),
        (lambda scores, classes, k: scores[:, None] * classes[:k], "the highest scores"),
        (lambda scores, classes, k: scores[:, None] + classes.topk(k).values, "multiplies"),
        (
            lambda scores, classes, k: scores[:, None] * classes.topk(k).values.flip(0),
            "the best class should stand first",
        ),
        (
            lambda scores, classes, k: scores[:, None] * classes.softmax(0).topk(k).values,
            "should score 0.30 and 0.15",
        ),
    ],
}
