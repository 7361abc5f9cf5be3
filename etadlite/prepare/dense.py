"""Features at a fixed stride over whole videos, in the files that TSP and ActionFormer publish."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from etadlite.base.errors import InputError
from etadlite.base.weights import fingerprint
from etadlite.config import DataSettings, Settings
from etadlite.data.augment import centre_crop
from etadlite.data.features import feature_file, write_features
from etadlite.data.split import VIDEO_SUFFIXES
from etadlite.data.video import Video
from etadlite.model.chunks import encode_in_chunks
from etadlite.prepare.extract import claim, process

BLOCK = 1024
"""Frames decoded at once: a block is 38 MB at 112x112, and seeking to it costs little."""


class Block(NamedTuple):
    """Consecutive clips of a video.

    Attributes:
        path: the video's file.
        frames: uint8 [3, U, h, w], each once.
        clips: which of them the clips take, int64 [n, F].
        last: whether the video ends here.
        error: why the video cannot be read; it ends here then.
    """

    path: Path
    frames: Tensor | None
    clips: Tensor | None
    last: bool
    error: str = ""


def clip_frames(
    frames: int, length: int, stride: int, *, from_fps: float = 1.0, to_fps: float | None = None
) -> np.ndarray:
    """Choose the frames of all clips that fit into a video.

    Clip n starts `stride` frames after clip n - 1, the first with the video; a video shorter than a
    clip has one, which ends with the last frame repeated. At another rate than the file's, frame k
    is the one shown at k / to_fps seconds, as in TSP.

    Args:
        frames: frames of the file.
        length: F, frames a clip.
        stride: frames from one clip to the next.
        from_fps: the file's frames a second.
        to_fps: frames a second that length and stride count in; None: the file's.

    Returns:
        Frame indices in the file, int64 [T, F], ascending.

    Raises:
        InputError: a number is not above zero.
    """
    rate = from_fps / to_fps if to_fps else 1.0
    if min(frames, length, stride) < 1 or not rate > 0:
        raise InputError(
            f"clips need frames, a length, a stride and a rate above 0, not {frames}, {length}, "
            f"{stride} and {to_fps}"
        )
    # A rate that differs by rounding alone, as 14.999 from 15, must not lose a frame now and then.
    if abs(rate - round(rate)) < 1e-3:
        rate = round(rate)
    shown = np.floor(np.arange(int(np.ceil(frames / rate))) * rate).astype(np.int64)
    starts = np.arange(max(len(shown) - length, 0) // stride + 1) * stride
    clips = (starts[:, None] + np.arange(length)).clip(max=len(shown) - 1)
    return shown[clips].clip(max=frames - 1)


def extract_dense(
    settings: Settings,
    encoder: nn.Module,
    folder: Path,
    *,
    stride: int,
    fps: float | None = None,
    progress: bool = True,
) -> int:
    """Write NAME.npy, float32 [T, C], for every video file of `data.videos`.

    Files that are there are kept. Under torchrun each process takes its share of the videos, on as
    many machines as there are. `manifest.json` beside the files says what they hold, in
    ActionFormer's names.

    Args:
        settings: where the videos lie, what a frame looks like (`data.decode_size`, `data.crop`),
            F (`data.frames`) and the chunk size. No annotations are needed.
        encoder: uint8 [n, 3, F, H, W] -> [n, C].
        folder: where the files are written.
        stride: frames from one feature to the next; TSP has 16, ActionFormer's I3D for THUMOS-14 4.
        fps: frames a second that F and stride count in; None: every file's own. TSP has 15.
        progress: show a bar, in the first process.

    Returns:
        The number of files that this process wrote.

    Raises:
        InputError: there is no video, the folder holds features of other settings, or videos could
            not be read; then all others are written, and the first of those is named.
    """
    files = video_files(settings.data.videos)
    claim(folder, dense_manifest(settings, encoder, stride, fps))
    rank, world = process()
    mine = [p for p in files[rank::world] if not feature_file(folder, p.stem).exists()]
    encoder.eval()
    parts: dict[Path, list[Tensor]] = {path: [] for path in mine}
    failed: list[str] = []
    data = DenseClips(mine, settings.data, stride, fps)
    workers = min(settings.data.workers, len(mine))
    blocks = DataLoader(data, batch_size=None, num_workers=workers)
    with tqdm(
        total=len(mine), desc="features", unit="video", disable=not progress or rank > 0
    ) as bar:
        for block in blocks:
            if block.error:
                failed.append(block.error)
            else:
                clips = block.frames[:, block.clips].transpose(0, 1)[None]
                part = encode_in_chunks(encoder, clips, settings.encoder.chunk_size)
                parts[block.path].append(part[0].cpu())
            if block.last:
                features = parts.pop(block.path)
                if not block.error:
                    target = feature_file(folder, block.path.stem)
                    write_features(target, torch.cat(features, dim=1))
                bar.update()
    if failed:
        raise InputError(
            f"{len(failed)} of {len(mine)} videos have no features, the first since {failed[0]}; "
            "the others are written; repair these and run the same command again",
            everywhere=True,
        )
    return len(mine)


class DenseClips(IterableDataset):
    """All clips of video files, block after block; see `clip_frames`."""

    def __init__(
        self, files: Sequence[Path], settings: DataSettings, stride: int, fps: float | None
    ) -> None:
        self.files = files
        self.settings = settings
        self.stride = stride
        self.fps = fps

    def __iter__(self) -> Iterator[Block]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for path in self.files[first::step]:
            try:
                yield from self.blocks(path)
            except InputError as error:
                yield Block(path, None, None, True, str(error))

    def blocks(self, path: Path) -> Iterator[Block]:
        """The blocks of one video."""
        settings, video = self.settings, Video(path)
        info = video.info
        clips = clip_frames(
            info.frames, settings.frames, self.stride, from_fps=info.fps, to_fps=self.fps
        )
        together = max(1, BLOCK // self.stride)
        for start in range(0, len(clips), together):
            wanted = clips[start : start + together]
            frames, places = np.unique(wanted, return_inverse=True)
            read = video.frames(frames, settings.decode_size, resize=settings.resize)
            shown = centre_crop(read, settings.crop)
            rows = torch.from_numpy(places.reshape(wanted.shape))
            yield Block(path, shown.transpose(0, 1), rows, start + together >= len(clips))


def video_files(folder: Path) -> list[Path]:
    """The video files of a folder, by name.

    Raises:
        InputError: there is none, or two of them have the same name but for the suffix.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise InputError(f"{folder} holds no video ({', '.join(VIDEO_SUFFIXES)})")
    for one, other in pairwise(files):
        if one.stem == other.stem:
            raise InputError(f"{one} and {other.name} would have the same features: remove one")
    return files


def dense_manifest(
    settings: Settings, encoder: nn.Module, stride: int, fps: float | None
) -> dict[str, Any]:
    """What feature files hold, in the names of ActionFormer's settings."""
    data = settings.data
    return {
        "feat_stride": stride,
        "num_frames": data.frames,
        "default_fps": fps,
        "input_dim": encoder.channels,
        "decode_size": list(data.decode_size),
        "resize": data.resize,
        "crop": data.crop,
        "encoder": settings.encoder.name,
        "weights": fingerprint(encoder),
    }
