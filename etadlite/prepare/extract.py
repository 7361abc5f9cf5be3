"""Features of whole videos: encoded chunk after chunk, and written to files."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from etadlite.base.errors import InputError
from etadlite.base.files import write_json
from etadlite.base.weights import fingerprint
from etadlite.config import Settings
from etadlite.data.datasets import VideoDataset
from etadlite.data.features import feature_file, write_features
from etadlite.data.unreadable import Readable, collate_readable
from etadlite.model.chunks import encode_in_chunks


def extract_features(
    settings: Settings, encoder: nn.Module, folder: Path, *, progress: bool = True
) -> int:
    """Write the features of all training and test videos; files that are there are kept.

    Under torchrun each process takes its share of the videos. Training videos get
    `data.feature_views` files: the plain video and augmented versions of it.

    Args:
        settings: which videos, and how they become snippets.
        encoder: uint8 [n, 3, F, H, W] -> [n, C].
        folder: where NAME.npy, NAME.1.npy, ... [T, C] are written.
        progress: show a bar.

    Returns:
        The number of files that this process wrote.

    Raises:
        InputError: videos are missing, the folder holds features of other settings, or videos
            could not be read; then all others are written, and the first of those is named.
    """
    claim(folder, _manifest(settings, encoder))
    rank, world = process()
    encoder.eval()
    jobs = [(False, False, 0), (True, False, 0)]
    jobs += [(True, True, view) for view in range(1, settings.data.feature_views)]
    written, failed = 0, {}
    for of_training, augmented, view in jobs:
        data = VideoDataset(settings.data, settings.detector.classes, training=of_training)
        data.training = augmented
        mine = data.videos[rank::world]
        data.videos = [v for v in mine if not feature_file(folder, v.name, view).exists()]
        if not data.videos:
            continue
        torch.manual_seed(settings.seed + view)
        batches = DataLoader(
            Readable(data), collate_fn=collate_readable, num_workers=settings.data.workers
        )
        title = f"features ({'training' if of_training else 'test'}, view {view})"
        for batch in tqdm(batches, desc=title, unit="video", disable=not progress):
            failed |= batch.failed
            if not batch.names:
                continue
            features = encode_in_chunks(encoder, batch.inputs, settings.encoder.chunk_size)
            write_features(feature_file(folder, batch.names[0], view), features[0])
            written += 1
    if failed:
        raise InputError(
            f"{len(failed)} videos have no features, the first since {next(iter(failed.values()))};"
            " the others are written; repair these and run the same command again",
            everywhere=True,
        )
    return written


def _manifest(settings: Settings, encoder: nn.Module) -> dict[str, Any]:
    # What a file holds does not depend on these.
    ignored = {"features", "feature_views", "workers", "cache", "blocked", "allow_missing"}
    ignored |= {"as_published", "window_stride", "window_offset", "window_overlap", "window_inside"}
    return {
        "data": settings.data.model_dump(mode="json", exclude=ignored),
        "encoder": settings.encoder.name,
        "weights": fingerprint(encoder),
    }


def process() -> tuple[int, int]:
    """This process's number and how many there are, as torchrun says."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own_device(device: torch.device) -> torch.device:
    """The device that is this process's of several of a kind, as torchrun says."""
    if device.type != "cuda":
        return device
    number = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", number % torch.cuda.device_count())


def claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Make the folder that of features of this kind, or refuse it.

    Raises:
        InputError: it holds features of another kind.
    """
    path = folder / "manifest.json"
    if path.exists():
        if json.loads(path.read_text()) != manifest:
            raise InputError(
                f"{folder} holds features of other videos or of another encoder (see {path}); "
                "choose another folder or delete this one"
            )
    elif process()[0] == 0:
        write_json(path, manifest)
