"""Progress with the time left: a bar, or plain lines where no terminal shows it."""

import builtins
import sys

from tqdm import tqdm


class _Lines:
    """Takes what tqdm writes to redraw its bar, and makes lines of it."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def training_bar(total: int, done: int, *, shown: bool) -> tqdm:
    """A bar over all steps of a training; in log files a line every half minute.

    Args:
        total: steps.
        done: steps that an earlier part of the run did.
        shown: whether it is wanted.
    """
    drawn = sys.stderr.isatty() or hasattr(builtins, "__IPYTHON__")
    plain = {} if drawn else {"file": _Lines(), "mininterval": 30, "maxinterval": 60, "ncols": 100}
    return tqdm(total=total, initial=done, desc="train", unit="step", disable=not shown, **plain)
