"""Errors that the command line tells in a sentence."""

from pathlib import Path


class InputError(ValueError):
    """Something given from outside cannot be used: one sentence that names it and the remedy.

    The command line prints the sentence and ends with exit code 2; nothing else does.

    Attributes:
        everywhere: whether each of several processes tells it, as each has its own.
    """

    def __init__(self, *sentence: str, everywhere: bool = False) -> None:
        super().__init__(*sentence)
        self.everywhere = everywhere

    @property
    def sentence(self) -> str:
        """What it says; raised by a data loading process, it arrives wrapped in a traceback."""
        return str(self).rpartition("InputError: ")[2].strip()


class StoppedError(Exception):
    """A training ended before its end and can go on from the state it left.

    Attributes:
        code: the exit code of the command; 128 + the number of a signal.
        folder: of the run that can be resumed; None where nothing was written.
        everywhere: whether each of several processes tells it, as the first may be gone.
    """

    def __init__(
        self,
        sentence: str,
        code: int = 1,
        folder: Path | None = None,
        *,
        everywhere: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.folder = folder
        self.everywhere = everywhere
