"""Plausible wrong answers to the exercises of 07_your_own_videos, and what the checker shall say.

Exercise -> (wrong answer, a part of the hint).
"""


def minutes_only(text):
    minutes, _, rest = text.rpartition(":")
    return 60 * float(minutes or 0) + float(rest)


def any_number_of_seconds(text):
    return sum(float(part) * 60**power for power, part in enumerate(text.split(":")[::-1]))


def limits_the_first_part(text):
    parts = [float(part) for part in text.split(":")]
    total = sum(part * 60**power for power, part in enumerate(parts[::-1]))
    return total if len(parts) == 1 or all(part < 60 for part in parts) else float("nan")


def limits_the_last_part(text):
    parts = [float(part) for part in text.split(":")]
    total = sum(part * 60**power for power, part in enumerate(parts[::-1]))
    return total if len(parts) == 1 or parts[-1] < 60 else float("nan")


def sixty_allowed(text):
    parts = [float(part) for part in text.split(":")]
    total = sum(part * 60**power for power, part in enumerate(parts[::-1]))
    return total if all(part <= 60 for part in parts[1:]) else float("nan")


def cheapest(kept, also_nothing=True, missed=None):
    """A search with one part of it done wrong."""
    missed = missed or (lambda actions, stay: actions - sum(stay))

    def attempt(scores, right, actions, alarm, miss):
        def cost(threshold):
            pairs = zip(scores, right, strict=True)
            stay = [good for score, good in pairs if kept(score, threshold)]
            return alarm * (len(stay) - sum(stay)) + miss * missed(actions, stay)

        return min([*scores, *[float("inf")] * also_nothing], key=cost)

    return attempt


def prices_swapped(scores, right, actions, alarm, miss):
    return cheapest(lambda a, b: a >= b)(scores, right, actions, miss, alarm)


def walks_in_the_given_order(scores, right, actions, alarm, miss):
    best, threshold, cost = actions * miss, float("inf"), actions * miss
    for score, good in zip(scores, right, strict=True):
        cost += -miss if good else alarm
        if cost < best:
            best, threshold = cost, score
    return threshold


WRONG = {
    "seconds": [
        (minutes_only, "with three parts the first is hours"),
        (any_number_of_seconds, "no minute has 83 seconds"),
        (sixty_allowed, "the next minute begins at 60"),
        (limits_the_last_part, "minutes, too, must stay below 60"),
        (limits_the_first_part, "the first part has no limit"),
        (lambda text: float(text.replace(":", ".")), "no minute, 59 seconds"),
    ],
    "best_threshold": [
        (cheapest(lambda a, b: a > b), "reaches a threshold of 0.9"),
        (prices_swapped, "not the other way round"),
        (cheapest(lambda a, b: a >= b, also_nothing=False), "to keep none costs only one miss"),
        (
            cheapest(lambda a, b: a >= b, missed=lambda actions, stay: 0),
            "a miss costs 4",
        ),
        (walks_in_the_given_order, "the detections need not be in order"),
        (lambda scores, *rest: max(scores), "0.9 would miss an action"),
    ],
}
