"""Features of whole videos: encoded chunk after chunk, and written to files."""

import json
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from etadlite.config import Settings
from etadlite.data.datasets import VideoDataset, collate
from etadlite.data.features import feature_file, write_features
from etadlite.encoders.chunks import encode_in_chunks
from etadlite.errors import InputError
from etadlite.weights import fingerprint


def extract_features(
    settings: Settings, encoder: nn.Module, folder: Path, *, progress: bool = True
) -> int:
    """Write the features of all training and test videos; files that are there are kept.

    Training videos get `data.feature_views` files: the plain video and augmented versions of it.

    Args:
        settings: which videos, and how they become snippets.
        encoder: uint8 [n, 3, F, H, W] -> [n, C].
        folder: where NAME.npy, NAME.1.npy, ... [T, C] are written.
        progress: show a bar.

    Returns:
        The number of files written.

    Raises:
        InputError: videos are missing, or the folder holds features of other settings.
    """
    _claim(folder, settings, encoder)
    encoder.eval()
    jobs = [(False, False, 0), (True, False, 0)]
    jobs += [(True, True, view) for view in range(1, settings.data.feature_views)]
    written = 0
    for of_training, augmented, view in jobs:
        data = VideoDataset(settings.data, settings.detector.classes, training=of_training)
        data.training = augmented
        data.videos = [v for v in data.videos if not feature_file(folder, v.name, view).exists()]
        if not data.videos:
            continue
        torch.manual_seed(settings.seed + view)
        batches = DataLoader(data, collate_fn=collate, num_workers=settings.data.workers)
        title = f"features ({'training' if of_training else 'test'}, view {view})"
        for batch in tqdm(batches, desc=title, unit="video", disable=not progress):
            features = encode_in_chunks(encoder, batch.inputs, settings.encoder.chunk_size)
            write_features(feature_file(folder, batch.names[0], view), features[0])
            written += 1
    return written


def _claim(folder: Path, settings: Settings, encoder: nn.Module) -> None:
    """Make the folder that of these settings, or refuse it."""
    # What a file holds does not depend on these.
    ignored = {"features", "feature_views", "workers", "cache", "blocked", "allow_missing"}
    ignored |= {"as_published", "window_stride", "window_offset", "window_overlap", "window_inside"}
    manifest = {
        "data": settings.data.model_dump(mode="json", exclude=ignored),
        "encoder": settings.encoder.name,
        "weights": fingerprint(encoder),
    }
    path = folder / "manifest.json"
    if path.exists():
        if json.loads(path.read_text()) != manifest:
            raise InputError(
                f"{folder} holds features of other videos or of another encoder (see {path}); "
                "choose another folder or delete this one"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest, indent=1))
