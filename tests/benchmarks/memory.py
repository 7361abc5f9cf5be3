"""Memory of a step: predicted at the paper's size, and measured while the video grows.

    python tests/benchmarks/memory.py [--json FILE] [--giant]

The first table is predicted, on any machine; `etadlite plan e2e_anet_tsp device=cuda --measure`
measures it on a GPU. The second is measured: the three passes of the tiny encoder on one video of
32 to 1,024 snippets of 8 x 48 x 48, less the video's own frames and features. `--giant` also
predicts a VideoMAE of the size of ViT-g, a billion parameters, which takes 5 GB of this machine's
memory and half a minute.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

import torch
from report import machine, write_report

from etadlite.config import ENCODERS
from etadlite.encoders import tiny_encoder
from etadlite.encoders.transformers_video import NETWORKS
from etadlite.memory import measure
from etadlite.memory.plan import plan
from etadlite.model.sequential_encoder import SequentialEncoder
from etadlite.presets import preset

LENGTHS = (32, 64, 128, 256, 512, 1024)
PASSES = ("pass_1", "pass_2", "pass_3")


def predicted() -> dict[str, dict[str, float]]:
    """GB a video at batch 4 of 128x16x112x112, R(2+1)D-34, AdamW, on a GPU."""
    found = {}
    for precision in ("bf16", "fp32"):
        for keep in ("device", "host"):
            changes = (f"training.precision={precision}", f"encoder.keep_prefix={keep}")
            found[f"{precision}, prefix on {keep}"] = gigabytes(*changes)
    for frozen in ("fp32", "bf16"):
        changes = ("training.precision=bf16", f"encoder.frozen_dtype={frozen}")
        found[f"bf16, adapters, frozen in {frozen}"] = gigabytes("encoder.train=adapters", *changes)
    return found


def gigabytes(*changes: str) -> dict[str, float]:
    """GB of each part of a step on a GPU, and in all for a video."""
    settings = preset("e2e_anet_tsp", ["device=cuda", *changes])
    rows = plan(settings).rows
    parts = {title: size / 1e9 for title, size in rows.stack().items()}
    return parts | {"GB a video": rows.total / 1e9 / settings.training.batch_size}


VIT_G = {
    "hidden_size": 1408,
    "num_hidden_layers": 40,
    "num_attention_heads": 16,
    "intermediate_size": 6144,
    "patch_size": 14,
}


def giant() -> dict[str, dict[str, float]]:
    """GB of one video with adapters in a VideoMAE of ViT-g's size, a tenth of 128 snippets."""
    sizes = NETWORKS["videomae_l"]._replace(sizes=VIT_G)
    expected = ENCODERS["videomae_l"]._replace(channels=VIT_G["hidden_size"])
    few = ("encoder.train=adapters", "encoder.frozen_dtype=bf16", "encoder.frozen_stages=null")
    one = ("training.batch_size=1", "encoder.chunk_size=1", "sampling.snippet_ratio=0.1")
    named = ("encoder.name=videomae_l", "encoder.weights=null", "training.precision=bf16")
    with patch.dict(NETWORKS, videomae_l=sizes), patch.dict(ENCODERS, videomae_l=expected):
        return {
            f"ViT-g, checkpointing={again}": gigabytes(
                *named, *few, *one, f"encoder.checkpointing={again}"
            )
            for again in ("true", "false")
        }


def measured() -> dict[int, dict[str, float]]:
    """MiB of each pass beyond what lasts, for one video of each length."""
    sequential, found = SequentialEncoder(tiny_encoder().train(), 8, ratio=0.3), {}
    for length in LENGTHS:
        video = torch.randint(0, 256, (1, length, 3, 8, 48, 48), dtype=torch.uint8)
        sequential(video).square().sum().backward()
        with measure(sequential, None, video) as measured:
            sequential(video).square().sum().backward()
        sequential.zero_grad()
        passes = {name: getattr(measured.rows, name) / 2**20 for name in PASSES}
        found[length] = {"frames": measured.rows.inputs / 2**20} | passes
    return found


def main() -> None:
    """Predict, measure and report."""
    parser = argparse.ArgumentParser(description="Memory of a step, predicted and measured.")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("--giant", action="store_true", help="also predict ViT-g's size")
    arguments = parser.parse_args()
    about = machine()
    paper, growth = predicted(), measured()
    print("predicted for a GPU: R(2+1)D-34, batch 4 of 128x16x112x112, ratio 40/128, chunk 4")
    for name, found in paper.items():
        print(f"  {name:<32}{found['GB a video']:6.3f} GB a video")
    large = giant() if arguments.giant else {}
    for name, found in large.items():
        print(f"  {name:<32}{found['GB a video']:6.3f} GB a video, batch 1, ratio 0.1, chunk 1")
    print(f"measured on {about['device']}: passes 1 and 3 of the tiny encoder, one video")
    print("       N  frames MiB  pass 1 MiB  pass 3 MiB")
    for length, found in growth.items():
        values = (found["frames"], found["pass_1"], found["pass_3"])
        print(f"{length:8d}" + "".join(f"{value:12.2f}" for value in values))
    write_report(arguments.json, {"predicted": paper | large, "measured": growth})


if __name__ == "__main__":
    main()
