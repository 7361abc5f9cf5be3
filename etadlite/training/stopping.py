"""A training that ends early: what is said, and whether its state is saved."""

import errno
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from etadlite.base import distributed
from etadlite.base.errors import InputError, StoppedError, disk_is_full, first_line
from etadlite.base.gpu import release_memory
from etadlite.config import Settings, flat
from etadlite.training.state import STATE, Training


def stopped(
    error: Exception, save: Callable[[], None], folder: Path | None, *, died: bool
) -> StoppedError | None:
    """Save the state, and return the error that stands for what stopped a training.

    Where the state may lie between two updates, or lack a record, the last saved one is kept.
    `died` is True if a process that loads videos has died. The result is None for an error that
    has nothing to do with any of this.
    """
    code, keep, lost = 1, True, False
    if isinstance(error, StoppedError):
        reason, code = str(error), error.code
    elif isinstance(error, distributed.LostProcessError):
        reason, lost = "another process of this training was lost", True
    elif isinstance(error, OSError):
        where = error.filename or folder
        if disk_is_full(error):
            reason = f"the disk of {where} is full"
        elif error.errno in (errno.EIO, errno.ESTALE, errno.EROFS):
            reason = f"{where} cannot be written any more ({error.strerror})"
        else:
            return None
        keep = False  # perhaps the last record is lost, so its step is done again
    elif died:
        # PyTorch raises this wherever the step happens to be, perhaps between two of its updates.
        reason, keep = f"a process that loads videos died ({first_line(error)})", False
    else:
        return None
    if folder is None:
        return StoppedError(reason, code, everywhere=lost)
    if keep and distributed.is_first():
        try:
            save()
        except OSError as failure:
            reason += f", and its state cannot be saved ({failure.strerror})"
    where = "its last saved step" if (folder / STATE).exists() else "its beginning"
    return StoppedError(f"{reason}; {folder} goes on from {where}", code, folder, everywhere=lost)


def encode_fewer_at_once(training: Training, reason: str) -> None:
    """Let a training whose memory ran out encode half as many snippets at once.

    Raises:
        InputError: one snippet at a time is too many already.
    """
    at, encoder = training.progress, training.system.encoder
    training.optimizer.zero_grad(set_to_none=True)
    release_memory()
    if encoder is None or encoder.chunk_size == 1:
        known = training.explain(training.settled, (1,))
        raise InputError(_too_little_memory(training.settled, reason + known))
    tried, at.chunk_size = encoder.chunk_size, encoder.chunk_size // 2
    encoder.chunk_size = at.chunk_size
    if distributed.is_first():
        reason += training.explain(training.settled, (tried, at.chunk_size))
        warnings.warn(
            f"memory ran out with {tried} snippets encoded at once ({reason}); the step is "
            f"repeated, and the training goes on, with {at.chunk_size}",
            stacklevel=3,
        )


def _too_little_memory(settings: Settings, reason: str) -> str:
    """Say which settings to lower where memory does not suffice."""
    names = ["training.batch_size", "sampling.proposal_ratio", "data.snippets"]
    if settings.data.features is None:
        names += ["sampling.snippet_ratio", "data.crop"]
    values = flat(settings.model_dump(mode="json"))
    lower = ", ".join(f"{name} ({values[name]})" for name in names)
    return (
        f"memory does not suffice for a training step ({reason}); lower one of {lower}; "
        "`etadlite plan` says what fits"
    )


def without_videos(training: Training, reason: str, videos: int) -> InputError | StoppedError:
    """Return the error that ends a training without videos; one that has begun can be resumed.

    Without a reason, too many of the data set's `videos` cannot be read.
    """
    if not reason:
        failed = training.progress.failed
        names = ", ".join(list(failed)[:10]) + (", ..." if len(failed) > 10 else "")
        name, why = next(iter(failed.items()))
        reason = (
            f"{len(failed)} of {videos} training videos cannot be read, more than "
            f"training.max_unreadable allows: {names}; {name}: {why}"
        )
    return StoppedError(reason, 2) if training.progress.steps else InputError(reason)


def never_finite(suspects: Sequence[Sequence[str]]) -> str:
    """Say with which videos the steps in a row were made whose loss or gradient is not finite."""
    videos = ", ".join(dict.fromkeys(name for names in suspects for name in names))
    return (
        f"loss or gradient of {len(suspects)} steps in a row were not finite, with the videos "
        f"{videos}; lower training.detector_lr and training.encoder_lr, set training.clip_norm, "
        "or check these videos"
    )
