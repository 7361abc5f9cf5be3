"""Features written to files: of a data set's videos, or dense at a fixed stride over any video."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from etadlite.base.distributed import torchrun_rank
from etadlite.base.errors import InputError
from etadlite.base.files import claim_folder
from etadlite.base.weights import fingerprint
from etadlite.config import Settings
from etadlite.data.datasets import VideoDataset
from etadlite.data.features import feature_file, write_features
from etadlite.data.unreadable import Readable, collate_readable, raise_errors
from etadlite.data.video_files import videos_in
from etadlite.model.chunks import encode_in_chunks
from etadlite.prepare.dense import DenseClips


class Extracted(NamedTuple):
    """The features [C, T] of a video and the file for them; None with the reason if it has none."""

    name: str
    file: Path
    features: Tensor | None
    reason: str = ""


def extract_features(
    settings: Settings, encoder: nn.Module, folder: Path, *, progress: bool = True
) -> int:
    """Write the features of all training and test videos; existing files are kept.

    Under torchrun each process takes its share of the videos. Training videos get
    `data.feature_views` files: one of the plain video, the others of augmented versions.

    Args:
        settings: which videos, and how they become snippets.
        encoder: uint8 [n, 3, F, H, W] -> [n, C].
        folder: where NAME.npy, NAME.1.npy, ... [T, C] are written.
        progress: show a bar, in the first process.

    Returns:
        The number of files that this process wrote.

    Raises:
        InputError: videos are missing, the folder holds features of other settings, or videos
            cannot be read; in the last case all others are written, and the first is named.
    """
    data = settings.data
    # These settings do not change what a file holds.
    ignored = {"features", "feature_views", "workers", "cache", "blocked", "allow_missing"}
    ignored |= {"as_published", "window_stride", "window_offset", "window_overlap", "window_inside"}
    manifest = {"data": data.model_dump(mode="json", exclude=ignored)}
    claim_folder(folder, manifest | _origin(settings, encoder), "features")
    rank, world = torchrun_rank()
    work: list[tuple[int, VideoDataset]] = []
    for training, view in [(False, 0), *((True, view) for view in range(data.feature_views))]:
        videos = VideoDataset(data, settings.detector.classes, training=training)
        videos.training = view > 0  # whether they are augmented
        mine = videos.videos[rank::world]
        videos.videos = [v for v in mine if not feature_file(folder, v.name, view).exists()]
        if videos.videos:
            work.append((view, videos))

    def extracted() -> Iterator[Extracted]:
        for view, videos in work:
            torch.manual_seed(settings.seed + view)
            batches = DataLoader(
                Readable(videos), collate_fn=collate_readable, num_workers=data.workers
            )
            for batch in raise_errors(batches):
                for name, reason in batch.failed.items():
                    yield Extracted(name, feature_file(folder, name, view), None, reason)
                for name in batch.names:
                    part = encode_in_chunks(encoder, batch.inputs, settings.encoder.chunk_size)
                    yield Extracted(name, feature_file(folder, name, view), part[0])

    encoder.eval()
    return _write(extracted(), sum(len(videos) for _, videos in work), progress)


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

    The files are as TSP and ActionFormer publish them; `manifest.json` beside them says what they
    hold, in ActionFormer's names. Existing files are kept. Under torchrun each process, on any
    number of machines, takes its share of the videos.

    Args:
        settings: where the videos lie, what a frame looks like (`data.decode_size`, `data.crop`),
            F (`data.frames`) and the chunk size. No annotations are needed.
        encoder: uint8 [n, 3, F, H, W] -> [n, C].
        folder: where the files are written.
        stride: frames from one feature to the next; TSP has 16, ActionFormer's I3D for THUMOS-14 4.
        fps: frame rate that F and the stride refer to; None: each file's own. TSP has 15.
        progress: show a bar, in the first process.

    Returns:
        The number of files that this process wrote.

    Raises:
        InputError: there is no video, the folder holds features of other settings, or videos
            cannot be read; in the last case all others are written, and the first is named.
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
    mine = [p for p in files[rank::world] if not feature_file(folder, p.stem).exists()]

    def extracted() -> Iterator[Extracted]:
        parts: dict[Path, list[Tensor]] = defaultdict(list)
        for block in DataLoader(
            DenseClips(mine, data, stride, fps),
            batch_size=None,
            num_workers=min(data.workers, len(mine)),
        ):
            if not block.error:
                clips = block.frames[:, block.clips].transpose(0, 1)[None]
                part = encode_in_chunks(encoder, clips, settings.encoder.chunk_size)
                parts[block.path].append(part[0].cpu())
            if block.last:
                done, name = parts.pop(block.path, []), block.path.stem
                features = None if block.error else torch.cat(done, dim=1)
                yield Extracted(name, feature_file(folder, name), features, block.error)

    encoder.eval()
    return _write(extracted(), len(mine), progress)


def _origin(settings: Settings, encoder: nn.Module) -> dict[str, Any]:
    return {"encoder": settings.encoder.name, "weights": fingerprint(encoder)}


def _write(extracted: Iterable[Extracted], total: int, progress: bool) -> int:
    """Write features and return the number of files; raise an error at the end if some failed."""
    silent = not progress or torchrun_rank()[0] > 0
    names, failed, written = set(), {}, 0
    for one in tqdm(extracted, "features", total, unit="video", disable=silent):
        names.add(one.name)
        if one.features is None:
            failed[one.name] = one.reason
        else:
            write_features(one.file, one.features)
            written += 1
    if failed:
        raise InputError(
            f"{len(failed)} of {len(names)} videos have no features, the first because "
            f"{next(iter(failed.values()))}; the others are written; repair these and run the same "
            "command again",
            everywhere=True,
        )
    return written
