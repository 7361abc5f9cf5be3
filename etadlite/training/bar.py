"""The progress of a training with the time left: a bar, or lines of text in a log file."""

import builtins
import sys

from tqdm.auto import tqdm


class _Lines:
    """A file for tqdm that writes each redrawing of the bar as a line."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def training_bar(total: int, done: int, *, shown: bool, what: str = "train") -> tqdm:
    """Return a bar over all steps of a training, of which an earlier part of the run did `done`.

    In a log file it is a line every half minute; one that is not `shown` stays silent.
    """
    drawn = sys.stderr.isatty() or hasattr(builtins, "__IPYTHON__")
    plain = {} if drawn else {"file": _Lines(), "mininterval": 30, "maxinterval": 60, "ncols": 100}
    return tqdm(total=total, initial=done, desc=what, unit="step", disable=not shown, **plain)
