"""The record of a run while it trains: metrics in a file and for TensorBoard."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from etadlite.base.errors import InputError, never_fatal
from etadlite.base.files import parse_json, read_text


class Recorder:
    """Writes the records of a run to `metrics.jsonl` in its folder and for TensorBoard.

    What TensorBoard has of later steps than the `steps` done before is replaced.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self._board = None
        self._file = (folder / "metrics.jsonl").open("a")
        with never_fatal("TensorBoard's file"):
            after = steps + 1 if steps else None
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # On a full disk closing fails as writing did: the first error is the one to report.
        with suppress(Exception):
            if self._board is not None:
                self._board.close()
        with suppress(OSError):
            self._file.close()

    def log(self, record: dict[str, Any]) -> None:
        """Write the record of a step or of a test."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        board, self._board = self._board, None  # once it has failed it is left out
        with never_fatal("TensorBoard's file"):
            for name, value in record.items():
                if board is not None and isinstance(value, float) and name != "epoch":
                    board.add_scalar(name, value, record["step"])
            self._board = board


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the records of a run; a last line without an end is still being written, and left out.

    Raises:
        InputError: the folder is no run directory, or a record is broken.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise InputError(f"{folder} is no run directory: it has no metrics.jsonl")
    records = []
    for number, line in enumerate(read_text(path, "record of a run").split("\n")[:-1], 1):
        record = parse_json(line, f"{path}, line {number},", "record of a run", "delete this line")
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number}, is no record of a run; delete this line")
        records.append(record)
    return records
