"""Features written to files: of a data set's videos, or dense at a fixed stride over any video."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from tqdm.auto import tqdm

from etadlite.base.devices import resolve_device
from etadlite.base.distributed import local_device, torchrun_rank
from etadlite.base.errors import InputError
from etadlite.base.files import made_from
from etadlite.base.folders import claim_folder
from etadlite.base.weights import fingerprint
from etadlite.config import DataSettings, Settings
from etadlite.data.datasets import VideoDataset, centre_crop
from etadlite.data.feature_archives import is_archive
from etadlite.data.features import feature_file, origin_of, write_features
from etadlite.data.loading import Readable, collate_readable, raise_errors
from etadlite.data.shared_memory import answered, require_shared
from etadlite.data.snippets import clip_frames
from etadlite.data.video import Video
from etadlite.data.video_folders import videos_in
from etadlite.encoders.build import build_encoder
from etadlite.model.chunks import encode_in_chunks

BLOCK = 1024  # frames that are decoded together: 38 MB at 112x112; seeking to them costs little
Extracted = tuple[Path, Tensor | str]  # a file, and its features [C, T] or why it has none


class Block(NamedTuple):
    """Consecutive clips of a video, or at the end the reason why it cannot be read."""

    path: Path
    last: bool  # True for the last block of the video
    frames: Tensor | None = None  # uint8 [3, U, H, W], without repetitions
    clips: Tensor | None = None  # where the frames of each clip are among these, int64 [n, F]
    error: str = ""  # empty if the video can be read


def extract(
    settings: Settings,
    folder: Path | None = None,
    *,
    stride: int | None = None,
    fps: float | None = None,
    progress: bool = True,
) -> tuple[int, Path]:
    """Write features with the settings' encoder; return the number of files, and their folder.

    Without a stride these are the features of a training, see `extract_features`, else those of
    `extract_dense`. Without a folder they are written to `data.features`. The number is that of
    this process, whose device is used.
    """
    folder = folder or settings.data.features
    if folder is None or settings.data.videos is None:
        raise InputError(
            f"{settings.name} needs both data.videos and data.features to extract; "
            "give the missing one as data.videos=FOLDER or data.features=FOLDER"
        )
    if folder.is_file() or is_archive(folder):
        raise InputError(f"{folder} is called like a file, but features are written to a folder")
    if fps is not None and stride is None:
        raise InputError("--fps needs --stride, the frames between two features")
    exact = settings.changed({"encoder.frozen_dtype": "fp32"}).encoder  # nothing is trained here
    encoder = build_encoder(exact).to(local_device(resolve_device(settings.device)))
    if stride is None:
        return extract_features(settings, encoder, folder, progress=progress), folder
    written = extract_dense(settings, encoder, folder, stride=stride, fps=fps, progress=progress)
    return written, folder


def extract_features(
    settings: Settings, encoder: nn.Module, folder: Path, *, progress: bool = True
) -> int:
    """Write the features of all training and test videos; files that still fit are kept.

    A file notes the size and the time of its video, and is made again when the video is replaced.
    Files without a note are kept.

    Under torchrun each process takes its share of the videos, and the first one shows a bar; the
    result is the number of files that this process wrote. Training videos get `data.feature_views`
    files NAME.npy, NAME.1.npy, ... [T, C]: one of the plain video, the others of augmented
    versions. The encoder is uint8 [n, 3, F, H, W] -> [n, C].

    Raises:
        InputError: videos are missing, the folder holds features of other settings, or videos
            cannot be read; in the last case all others are written, and the first is named.
    """
    data = settings.data
    # These settings do not change what a file holds.
    ignored = {"features", "feature_views", "workers", "cache", "blocked", "allow_missing"}
    ignored |= {"decoder", "as_published"}
    ignored |= {"window_stride", "window_offset", "window_overlap", "window_inside"}
    manifest = {"data": data.model_dump(mode="json", exclude=ignored)}
    claim_folder(folder, manifest | _origin(settings, encoder), "features")
    rank, world = torchrun_rank()
    whole = settings.changed({"data.window_stride": None}).data
    work: list[tuple[int, VideoDataset]] = []
    origins: dict[Path, bytes] = {}
    for training, view in [(False, 0), *((True, view) for view in range(data.feature_views))]:
        videos = VideoDataset(whole, settings.detector.classes, training=training)
        videos.training = view > 0  # whether they are augmented
        mine = {feature_file(folder, p.video.name, view): p for p in videos.parts[rank::world]}
        notes = {file: made_from("features", videos.file_of(p.video)) for file, p in mine.items()}
        origins |= notes
        videos.parts = [p for file, p in mine.items() if not _fits(file, notes[file])]
        if videos.parts:
            work.append((view, videos))

    def extracted() -> Iterator[Extracted]:
        for view, videos in work:
            torch.manual_seed(settings.seed + view)
            readable, how = Readable(videos), {"collate_fn": collate_readable}
            for batch in raise_errors(_loaded(readable, settings, data.workers, **how)):
                for name, reason in batch.failed.items():
                    yield feature_file(folder, name, view), reason
                for name in batch.names:
                    part = encode_in_chunks(encoder, batch.inputs, settings.encoder.chunk_size)
                    yield feature_file(folder, name, view), part[0]

    require_shared(data.workers, data.snippets * 3 * data.frames * data.crop**2)
    encoder.eval()
    return _write(extracted(), origins, sum(len(videos) for _, videos in work), progress)


def extract_dense(
    settings: Settings,
    encoder: nn.Module,
    folder: Path,
    *,
    stride: int,
    fps: float | None = None,
    progress: bool = True,
) -> int:
    """Write NAME.npy, float32 [T, C], for every video file of `data.videos`; needs no annotations.

    The files are as TSP and ActionFormer publish them; `manifest.json` beside them says what they
    hold, in ActionFormer's names. The stride is in frames: TSP has 16, ActionFormer's I3D for
    THUMOS-14 has 4. F and the stride refer to the rate `fps` of the file's clock, which is 15 for
    TSP; None: each file's own. For everything else see `extract_features`.
    """
    data = settings.data
    files = list(videos_in(data.videos).values())
    manifest = {
        "feat_stride": stride,
        "num_frames": data.frames,
        "default_fps": fps,
        "input_dim": encoder.channels,
        "decode_size": list(data.decode_size),
        "resize": data.resize,
        "crop": data.crop,
    }
    claim_folder(folder, manifest | _origin(settings, encoder), "features")
    rank, world = torchrun_rank()
    origins = {feature_file(folder, p.stem): made_from("features", p) for p in files[rank::world]}
    mine = [
        p
        for p, (file, note) in zip(files[rank::world], origins.items(), strict=True)
        if not _fits(file, note)
    ]

    def extracted() -> Iterator[Extracted]:
        parts: dict[Path, list[Tensor]] = defaultdict(list)  # workers read several videos at once
        blocks = DenseClips(mine, data, stride, fps)
        for block in _loaded(blocks, settings, workers, batch_size=None):
            if not block.error:
                clips = block.frames[:, block.clips].transpose(0, 1)[None]
                part = encode_in_chunks(encoder, clips, settings.encoder.chunk_size)
                parts[block.path].append(part[0].cpu())
            if block.last:
                done = parts.pop(block.path, [])
                yield feature_file(folder, block.path.stem), block.error or torch.cat(done, dim=1)

    workers = min(data.workers, len(mine))
    require_shared(workers, max(BLOCK, stride + data.frames) * 3 * data.crop**2)
    encoder.eval()
    return _write(extracted(), origins, len(mine), progress)


@dataclass(eq=False)
class DenseClips(IterableDataset):
    """All clips of video files, block by block; see `clip_frames` and `frames_at`."""

    files: Sequence[Path]
    settings: DataSettings
    stride: int
    fps: float | None

    def __iter__(self) -> Iterator[Block]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for path in self.files[first::step]:
            try:
                yield from self.blocks(path)
            except InputError as error:
                yield Block(path, last=True, error=str(error))

    def blocks(self, path: Path) -> Iterator[Block]:
        """Yield the clips of a video, in their order."""
        settings, video = self.settings, Video(path)
        played = frames_at(video, self.fps)
        clips = played[clip_frames(len(played), settings.frames, self.stride)]
        together = max(1, BLOCK // self.stride)
        for start in range(0, len(clips), together):
            wanted = clips[start : start + together]
            frames, places = np.unique(wanted, return_inverse=True)
            how = {"resize": settings.resize, "decoder": settings.decoder}
            read = video.frames(frames, settings.decode_size, **how)
            shown = centre_crop(read, settings.crop).transpose(0, 1)
            rows = torch.from_numpy(places.reshape(wanted.shape))
            yield Block(path, start + together >= len(clips), shown, rows)


def frames_at(video: Video, fps: float | None = None) -> np.ndarray:
    """Return the frames that play a video at another rate: indices, int64, ascending.

    Frame k is the one shown at k / fps seconds, as in TSP. None: the file's own mean rate.
    """
    own, duration = video.info.fps, video.info.duration
    if fps is None:
        return video.counted(np.arange(video.count), own)
    ratio = own / fps
    off = abs(ratio - round(ratio))
    # A rate that differs only by rounding, such as 14.999 from 15, must not lose frames.
    if off < 1e-3 and off * video.count < 0.5:
        fps = own / round(ratio)
    return video.shown_at(np.arange(ceil(duration * fps - 1e-6)) / fps)


def _origin(settings: Settings, encoder: nn.Module) -> dict[str, Any]:
    return {"encoder": settings.encoder.name, "weights": fingerprint(encoder)}


def _fits(file: Path, origin: bytes) -> bool:
    """Return True if a feature file is there and was not made from another version of its video."""
    return file.exists() and origin_of(file) in (None, origin)


def _loaded(data: Dataset, settings: Settings, workers: int, **how: Any) -> Iterator[Any]:
    """Yield what a data set loads in some processes, as long as they answer."""
    patience = 60 * settings.training.patience_minutes if workers else 0
    return answered(DataLoader(data, num_workers=workers, timeout=patience, **how))


def _write(
    extracted: Iterable[Extracted], origins: Mapping[Path, bytes], total: int, progress: bool
) -> int:
    """Write features with their origins, and return the number of files.

    Raises:
        InputError: some cannot be written; this is known at the end, when all others are.
    """
    silent = not progress or torchrun_rank()[0] > 0
    failed = []
    for file, features in tqdm(extracted, "features", total, unit="video", disable=silent):
        if isinstance(features, str):
            failed.append(features)
        else:
            write_features(file, features, origins[file])
    if failed:
        raise InputError(
            f"{len(failed)} of {total} feature files cannot be written, the first because "
            f"{failed[0]}; the others are written; repair the videos and run this command again",
            everywhere=True,
        )
    return total
