"""Numbers as they are written on a command line."""

from etadlite.base.errors import InputError


def read_numbers(text: str, name: str) -> list[float]:
    """Numbers from `START:STOP:STEP`, both ends included, or from a list with commas.

    Args:
        text: for example `0.5:0.95:0.05` or `0.3,0.5`.
        name: what they are called in messages.

    Raises:
        InputError: `text` is neither; a step that is not positive; more than a thousand steps.
    """
    problem = InputError(
        f'{name} is "{text}"; give START:STOP:STEP (0.5:0.95:0.05) or a list with commas (0.3,0.5)'
    )
    parts = text.split(":")
    try:
        if len(parts) == 1:
            return [float(part) for part in text.split(",")]
        start, stop, step = (float(part) for part in parts)
        steps = (stop - start) / step + 1e-6
    except (ValueError, ZeroDivisionError):
        raise problem from None
    if not (step > 0 and 0 <= steps <= 1000):
        raise problem
    # Rounded, so that the values are those that one would write down.
    return [round(start + i * step, 10) for i in range(int(steps) + 1)]
