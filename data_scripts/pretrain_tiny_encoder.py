"""Make the shipped weights of the tiny encoder: pre-train it on studio clips, measure its features.

    python data_scripts/pretrain_tiny_encoder.py etadlite/encoders/tiny_r2plus1d.safetensors

The encoder learns to classify trimmed studio clips as one of the eight actions or as idling. The
classifier is thrown away. At the end the script prints the accuracy on other studio clips, on
studio clips that repeat one frame (it is chance, because only motion tells the classes apart), and
on clips of the target domain (it shows the gap that end-to-end training closes).
"""

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn
from torchvision.transforms import v2
from tqdm import trange

import etadlite
from etadlite.base.weights import save_weights
from etadlite.encoders import TinyR2Plus1D
from etadlite.stickfigures.classes import CLASSES
from etadlite.stickfigures.dataset import VERSION, studio_clips
from etadlite.stickfigures.scene import STUDIO, TARGET, SceneSettings

FRAMES, SIZE, CROP = 8, 52, 48  # as in the preset `e2e_stickfigures`
BATCH = 32


def clips(count: int, seed: int, scene: SceneSettings) -> tuple[Tensor, Tensor]:
    """Make clips uint8 [count, 3, F, SIZE, SIZE] and their classes [count]."""
    frames, labels = studio_clips(count, FRAMES, SIZE, seed=seed, scene=scene)
    return torch.from_numpy(frames), torch.from_numpy(labels)


def train(model: nn.Module, frames: Tensor, labels: Tensor, epochs: int) -> None:
    vary = v2.Compose([v2.RandomCrop(CROP), v2.ColorJitter(brightness=0.2, contrast=0.2)])
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    steps = epochs * (len(frames) // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.15)
    for _ in trange(epochs, desc="pre-train", unit="epoch"):
        for chosen in torch.randperm(len(frames))[: len(frames) // BATCH * BATCH].split(BATCH):
            varied = torch.stack([vary(clip.transpose(0, 1)) for clip in frames[chosen]])
            loss = F.cross_entropy(model(varied.transpose(1, 2)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            rates.step()


@torch.inference_mode()
def in_batches(model: nn.Module, frames: Tensor) -> Tensor:
    cut = v2.functional.center_crop(frames, [CROP, CROP])
    return torch.cat([model(chunk) for chunk in cut.split(BATCH)])


def accuracy(model: nn.Module, frames: Tensor, labels: Tensor) -> float:
    """Return the share of correctly classified clips, in percent."""
    return 100 * float((in_batches(model, frames).argmax(dim=1) == labels).float().mean())


def main(
    target: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    count: Annotated[int, typer.Option(help="Studio clips.")] = 6000,
    epochs: int = 6,
    seed: int = 0,
) -> None:
    """Pre-train the tiny encoder and write its weights."""
    torch.manual_seed(seed)
    encoder = TinyR2Plus1D()
    standardise = nn.BatchNorm1d(encoder.channels, affine=False)
    model = nn.Sequential(encoder, standardise, nn.Linear(encoder.channels, len(CLASSES) + 1))
    train(model, *clips(count, seed + 1, STUDIO), epochs)
    model.eval()

    frames, labels = clips(1000, seed + 2, STUDIO)
    still = frames[:, :, :1].expand_as(frames).contiguous()
    measured = {
        "studio": accuracy(model, frames, labels),
        "one frame repeated": accuracy(model, still, labels),
        "target domain": accuracy(model, *clips(1000, seed + 3, TARGET)),
    }
    for name, value in measured.items():
        print(f"accuracy, {name}: {value:.1f} % (chance {100 / (len(CLASSES) + 1):.1f} %)")

    features = in_batches(encoder, frames)
    encoder.feature_mean.copy_(features.mean(dim=0))
    deviation = features.std(dim=0)
    encoder.feature_std.copy_(deviation.where(deviation > 1e-3, 1.0))  # some channels are always 0
    metadata = {"seed": str(seed), "clips": str(count), "epochs": str(epochs)}
    metadata |= {"etadlite": etadlite.__version__, "data": VERSION, "torch": torch.__version__}
    save_weights(target, encoder, metadata | {name: f"{v:.1f}" for name, v in measured.items()})
    print(f"{target}: {target.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    typer.run(main)
