"""The feature bank: the features of all snippets of a training, kept from step to step.

With `sampling.others=bank` a step encodes only the snippets that carry a gradient. The features of
the others are those that an earlier step has computed. The idea is TALLFormer's (Cheng and
Bertasius, "TALLFormer: temporal action localization with a long-memory transformer", ECCV 2022);
here it is joined to sampled gradients. At ratio 1 nothing is taken from the bank.

What this costs: features in the bank are *stale*, because the encoder has learned since, and they
show another *view* of the video, because crop, mirroring and colours are drawn anew in every epoch.
A snippet is refreshed once in 1 / ratio epochs on average, so both grow as the ratio falls.

The bank is filled by one pass over the training videos, in the views of the first epoch and without
dropout. In a run folder it is `bank.npy`, a memory-mapped file. What steps change is held in memory
until the next state is saved, which holds these rows, too; only then are they written to the file.
So the file and the state together are always the bank at the time of the state, whenever a process
is killed: a training that goes on first writes the rows of its state to the file once more.

Once it is filled, only the snippets that a step will encode are read of its videos, see
`etadlite.model.picks`.

Of several processes the first one has the bank. The others ask it for rows, and send it theirs.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etadlite.base import distributed
from etadlite.base.devices import require_memory
from etadlite.base.draws import video_seed
from etadlite.base.errors import InputError
from etadlite.base.files import read_json, write_json
from etadlite.base.weights import fingerprint
from etadlite.config import Settings
from etadlite.data.datasets import AnnotatedVideos, Batch
from etadlite.model.picks import Picks
from etadlite.model.sequential_encoder import Recalled, SequentialEncoder
from etadlite.training.bar import training_bar
from etadlite.training.state import ABOUT, BANK, Progress, Training

GRID = {"snippets", "frames", "frame_step", "snippet_rule", "decode_size", "crop"}
GRID |= {"window_stride", "window_offset", "window_overlap"}
KINDS = {  # what `bank.json` says, and what differs where it says something else
    "samples": "other data",
    "grid": "another grid",
    "encoder": "another encoder",
    "weights": "another encoder",
    "run": "another run",
}
PLACES, STAMPS, FEATURES = "bank.places", "bank.stamps", "bank.features"  # in a saved state


class FeatureBank:
    """Features of S samples with N snippets each, in a file, or in memory if there is no folder.

    A row is a feature, float32 [C], and its stamp: 1 + the number of steps before it was computed;
    0 if it never was. Every process has a bank, but only that of the first one has rows.
    """

    def __init__(self, size: tuple[int, int, int], progress: Progress, epoch: int) -> None:
        self.size = size  # S, N, C
        self.progress = progress  # of the training, whose steps are its clock
        self.epoch = epoch  # steps of an epoch
        self.path: Path | None = None
        self.about: dict[str, Any] = {}  # of the file: what its rows depend on
        self._table: np.ndarray | None = None  # [S, N] of `row_type`
        self._changed: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}  # not in the file yet
        self._collected: list[tuple[Sequence[int], np.ndarray, np.ndarray]] = []

    @property
    def row_type(self) -> np.dtype:
        """The NumPy type of a row."""
        return np.dtype([("stamp", "<i4"), ("feature", "<f4", (self.size[2],))])

    @property
    def table(self) -> np.ndarray:
        """The rows [S, N]; in a file, those at the time of its last state."""
        if self._table is None:
            raise RuntimeError("only the bank of the first process has rows, once it is open")
        return self._table

    @property
    def nbytes(self) -> int:
        """The bytes of all rows."""
        return self.size[0] * self.size[1] * self.row_type.itemsize

    def make(self, path: Path | None) -> None:
        """Make room for the rows, all unknown; the file has all its bytes from the start.

        Raises:
            InputError: the disk, or for a bank in memory this memory, is too small.
        """
        what = f"the feature bank of {self.size[0]:,} samples with {self.size[1]} snippets of "
        what += f"{self.size[2]} channels"
        if path is None:
            require_memory(self.nbytes, f"{what} needs memory")
            self._table = np.zeros(self.size[:2], self.row_type)
            return
        free = shutil.disk_usage(path.parent).free
        if self.nbytes > free:
            raise InputError(
                f"{what} takes {self.nbytes:,} bytes in {path.parent}, but {free:,} bytes are free "
                "there; make room, choose another --out, or set sampling.others=encode"
            )
        with path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(self.row_type), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, {**header, "shape": self.size[:2]})
            nothing = bytes(self.size[1] * self.row_type.itemsize)
            for _ in range(self.size[0]):
                file.write(nothing)
        self.open(path)

    def open(self, path: Path, *, in_memory: bool = False) -> None:
        """Map a file into memory, or read it whole and leave the file alone.

        Raises:
            InputError: it is absent, broken, or of another size.
        """
        remedy = "resume with the same data, or start a new run without --resume"
        try:
            # With "r+" NumPy would make a file that was cut as long as it should be.
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path} is no feature bank ({reason}); {remedy}") from error
        if table.dtype != self.row_type or table.shape != self.size[:2]:
            feature = (table.dtype.fields or {}).get("feature")
            shape = [*table.shape, *(feature[0].shape if feature else ())]
            raise InputError(
                f"{path} is a feature bank of another grid: {shape} samples, snippets and channels "
                f"instead of {list(self.size)}; {remedy}"
            )
        if in_memory:
            self.path, self._table = None, np.array(table)
        else:
            self.path, self._table = path, np.load(path, mmap_mode="r+", allow_pickle=False)

    def recall(self, indices: Sequence[int]) -> Recalled:
        """Return what is known of samples; all processes call this together."""
        asked = distributed.gather(list(indices))
        found = [self._of_samples(numbers) for numbers in asked]
        mine = distributed.broadcast(found)[distributed.rank()]
        features = torch.from_numpy(np.ascontiguousarray(mine["feature"]))
        return Recalled(features, torch.from_numpy(mine["stamp"].astype(np.int64)))

    def unknown(self) -> list[int]:
        """Return the samples of which a snippet was never computed; none without rows."""
        if self._table is None:
            return []
        return np.flatnonzero((self._table["stamp"] == 0).any(axis=1)).tolist()

    def require_read(self, rows: Sequence[Tensor | None], recalled: Recalled) -> None:
        """Make sure that a step encoded only snippets that were read, `rows` of each video.

        Raises:
            RuntimeError: the step and the loader drew other snippets, which is a mistake in them.
        """
        for place, known in enumerate(rows):
            if known is not None and recalled.rows is not None:
                mine = recalled.rows[recalled.rows // self.size[1] == place] % self.size[1]
                if not torch.isin(mine, known).all():
                    raise RuntimeError("a step encoded snippets that were not read")

    def collect(self, indices: Sequence[int], recalled: Recalled) -> dict[str, float]:
        """Bring what all processes have encoded to the first one, for `refresh`.

        Returns:
            How stale the bank was, over all processes: `bank_age`, the mean age in epochs of the
            features that were used, and `bank_drift`, the mean distance of a new feature to what
            the bank had instead, relative to the length of the latter.
        """
        rows, encoded = recalled.rows, recalled.encoded
        if rows is None or encoded is None:  # this process has no video
            rows, encoded = torch.empty(0, dtype=torch.long), torch.empty(0, self.size[2])
        encoded = encoded.detach().float().cpu()
        sums = distributed.all_reduce_sum(self._staleness(recalled, rows, encoded)).tolist()
        self._collected = distributed.gather((list(indices), rows.numpy(), encoded.numpy()))
        age, used, drift, compared = sums
        return {"bank_age": age / max(1, used), "bank_drift": drift / max(1, compared)}

    def refresh(self) -> None:
        """Put what was collected last into the bank; of a sample that came twice, the last."""
        for indices, rows, encoded in self._collected:
            new = np.zeros(len(rows), self.row_type)
            new["stamp"], new["feature"] = self.progress.steps + 1, encoded
            for place, sample in enumerate(indices):
                mine = rows // self.size[1] == place
                self._put(sample, rows[mine] % self.size[1], new[mine])
        self._collected = []

    def put(self, indices: Sequence[int], features: Tensor) -> None:
        """Write all snippets of samples, features [B, C, N], straight into the table."""
        for sample, rows in zip(indices, features.mT.float().cpu().numpy(), strict=True):
            self.table["feature"][sample] = rows
            self.table["stamp"][sample] = self.progress.steps + 1

    def changes(self) -> dict[str, Tensor]:
        """Return what the file lacks, as tensors for a state."""
        parts = [(s, *part) for s, changed in self._changed.items() for part in changed]
        places = [np.stack((np.full(len(n), s), n), axis=1) for s, n, _ in parts]
        rows = np.concatenate([np.zeros(0, self.row_type), *(new for *_, new in parts)])
        return {
            PLACES: torch.from_numpy(np.concatenate([np.zeros((0, 2), np.int64), *places])),
            STAMPS: torch.from_numpy(np.ascontiguousarray(rows["stamp"])),
            FEATURES: torch.from_numpy(np.ascontiguousarray(rows["feature"])),
        }

    def write(self, changes: dict[str, Tensor]) -> None:
        """Write the rows of a state that was saved to the file, so that the next state need not."""
        rows = np.zeros(len(changes[STAMPS]), self.row_type)
        rows["stamp"], rows["feature"] = changes[STAMPS].numpy(), changes[FEATURES].numpy()
        samples, snippets = changes[PLACES].numpy().T
        if self.path is not None:
            _note_renaming(self.path.parent)
        self.table[samples, snippets] = rows  # where a place comes twice, its last row stays
        self.flush()
        self._changed = {}

    def flush(self) -> None:
        """Return once the file is on the disk."""
        if isinstance(self._table, np.memmap):
            self._table.flush()

    def _of_samples(self, indices: Sequence[int]) -> np.ndarray:
        rows = np.zeros((len(indices), self.size[1]), self.row_type)
        for row, sample in zip(rows, indices, strict=True):
            row[:] = self.table[sample]
            for snippets, new in self._changed.get(sample, ()):
                row[snippets] = new
        return rows

    def _put(self, sample: int, snippets: np.ndarray, new: np.ndarray) -> None:
        if self.path is None:
            self.table[sample, snippets] = new
        else:
            self._changed.setdefault(sample, []).append((snippets, new))

    def _staleness(self, recalled: Recalled, rows: Tensor, encoded: Tensor) -> Tensor:
        """Return the sum of ages and their number, the sum of drifts and their number: [4]."""
        stamps, before = recalled.stamps.flatten(), recalled.features.cpu().flatten(0, 1)
        is_used = torch.ones(len(stamps), dtype=torch.bool)
        is_used[rows] = False
        ages = (self.progress.steps + 1 - stamps[is_used]).double() / self.epoch
        known = stamps[rows] > 0
        old, new = before[rows][known].double(), encoded[known].double()
        drift = (new - old).norm(dim=1) / old.norm(dim=1).clamp(min=1e-12)
        return torch.tensor([ages.sum(), len(ages), drift.sum(), len(drift)])


def require_bank(settings: Settings, encoder: SequentialEncoder | None) -> None:
    """Refuse settings with which a bank makes no sense; the encoder is their system's.

    Raises:
        InputError: it names the setting.
    """
    sampling = settings.sampling
    if encoder is None:
        raise InputError(
            "sampling.others=bank is for videos that are encoded; with data.features set "
            "sampling.others=encode"
        )
    if sampling.snippet_ratio == 0:
        raise InputError(
            "sampling.others=bank needs sampling.snippet_ratio above 0: the features of a frozen "
            "encoder do not change; `etadlite extract` keeps them for good"
        )
    if encoder.sampler.needs == "gradient":
        raise InputError(
            f"sampling.snippet_strategy={sampling.snippet_strategy} chooses by the gradients of "
            "all snippets, so none can come from a bank; choose another, or sampling.others=encode"
        )


def bank_of(settings: Settings, samples: int, progress: Progress) -> FeatureBank:
    """Return the bank of a training, still without any rows."""
    size = samples, settings.data.snippets, settings.detector.in_channels
    return FeatureBank(size, progress, ceil(samples / settings.training.batch_size))


def open_bank(
    training: Training,
    folder: Path | None,
    data: AnnotatedVideos,
    batches: Iterable[Batch],
    *,
    progress: bool,
) -> FeatureBank:
    """Return the bank of a training that begins, or of one that goes on.

    From then on `data` reads the snippets that the steps encode.

    `batches` are the first epoch's, from which a new bank is filled. Videos that cannot be read
    stay unknown: where one can be read later, all its snippets are encoded.

    Raises:
        InputError: there is too little room; the bank beside a state is absent, or of other data,
            another encoder or another grid; or the encoder's features are not finite.
    """
    bank = bank_of(training.settled, training.samples, training.progress)
    ours = _about(training, data)
    with distributed.raise_together():
        if distributed.is_first():
            if training.resumed is not None:
                _reopen(bank, training.resumed, ours, folder)
            else:
                bank.make(None if folder is None else folder / BANK)
    if training.resumed is None:
        title = f"feature bank, {bank.nbytes / 1e6:,.0f} MB"
        shown = progress and distributed.is_first()
        with training_bar(bank.epoch, 0, shown=shown, what=title) as bar:
            for batch in batches:
                _fill(bank, training, batch)
                bar.update()
        bank.about = ours
        if bank.path is not None:
            bank.flush()
            write_json(bank.path.with_name(ABOUT), ours)
    data.picks = Picks(training.settled, distributed.broadcast(bank.unknown()))
    return bank


@torch.no_grad()
def _fill(bank: FeatureBank, training: Training, batch: Batch) -> None:
    """Encode all snippets of a batch of the first epoch, in all processes together."""
    _, snippets, channels = bank.size
    features = torch.empty(0, channels, snippets)
    with distributed.raise_together():
        if batch.names:
            features = training.system.eval().features(batch.inputs).float().cpu()
        for name, feature in zip(batch.names, features, strict=True):
            if not torch.isfinite(feature).all():
                raise InputError(
                    f"the encoder's features of {name} are not finite; check its weights, this "
                    "video, or set training.precision=fp32"
                )
    # What replaces a video that cannot be read has that one's seed, and comes by itself, too.
    seed = training.settings.seed
    own = [video_seed(seed, 0, index) for index in batch.indices]
    kept = [n for n, (found, its) in enumerate(zip(batch.seeds, own, strict=True)) if found == its]
    part = [batch.indices[n] for n in kept], features[kept]
    for indices, found in distributed.gather(part):
        bank.put(indices, found)


def _about(training: Training, data: AnnotatedVideos) -> dict[str, Any]:
    """Return what the rows of a bank that is filled now depend on."""
    settings, encoder = training.settled, training.system.encoder
    assert encoder is not None
    digest = hashlib.sha256()
    for part in data.parts:
        start = "" if part.window is None else part.window.first_frame
        digest.update(f"{part.video.name}\n{start}\n".encode())
    return {
        "samples": digest.hexdigest(),
        "grid": settings.data.model_dump(mode="json", include=GRID),
        "encoder": settings.encoder.name,
        "weights": fingerprint(encoder),
        "run": os.urandom(8).hex(),
    }


def _reopen(bank: FeatureBank, state: Path, ours: dict[str, Any], folder: Path | None) -> None:
    """Open the bank beside a state, and bring it to the time of the state."""
    from etadlite.training.resume import bank_of_state

    path, remedy = state.parent / BANK, "start a new run without --resume"
    changes, theirs = bank_of_state(state)
    about = read_json(state.parent / ABOUT, "description of a feature bank", remedy)
    # The encoder has learned since, so its weights are compared with those that the state names.
    expected = theirs | {name: ours[name] for name in ("samples", "grid", "encoder")}
    for name, what in KINDS.items():
        if not isinstance(about, dict) or about.get(name) != expected[name]:
            raise InputError(f"{path} is a feature bank of {what} than this training; {remedy}")
    if folder is not None and folder.resolve() != state.parent.resolve():
        for name in (BANK, ABOUT):
            shutil.copy(state.parent / name, folder / name)
        path = folder / BANK
    bank.open(path, in_memory=folder is None)
    bank.about = about
    bank.write(changes)


def _note_renaming(folder: Path) -> None:
    """Return once the names of a folder's files are on the disk, where the system can say so."""
    if os.name == "posix":
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
