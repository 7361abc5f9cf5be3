"""Memory of a step: predicted at the paper's size, and measured while the video grows.

    python tests/benchmarks/memory.py [--json FILE]

The first table is predicted, on any machine; `etadlite plan e2e_anet_tsp device=cuda --measure`
measures it on a GPU. The second is measured: the three passes of the tiny encoder on one video of
32 to 1,024 snippets of 8 x 48 x 48, less the video's own frames and features.
"""

import argparse
from pathlib import Path

import torch
from report import machine, write_report

from etadlite.encoders import tiny_encoder
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
            changes = ["device=cuda", f"training.precision={precision}"]
            settings = preset("e2e_anet_tsp", [*changes, f"encoder.keep_prefix={keep}"])
            rows = plan(settings).rows
            gigabytes = {title: size / 1e9 for title, size in rows.stack().items()}
            each = rows.total / 1e9 / settings.training.batch_size
            found[f"{precision}, prefix on {keep}"] = gigabytes | {"GB a video": each}
    return found


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
    arguments = parser.parse_args()
    about = machine()
    paper, growth = predicted(), measured()
    print("predicted for a GPU: R(2+1)D-34, batch 4 of 128x16x112x112, ratio 40/128, chunk 4")
    for name, found in paper.items():
        print(f"  {name:<22}{found['GB a video']:6.3f} GB a video")
    print(f"measured on {about['device']}: passes 1 and 3 of the tiny encoder, one video")
    print("       N  frames MiB  pass 1 MiB  pass 3 MiB")
    for length, found in growth.items():
        values = (found["frames"], found["pass_1"], found["pass_3"])
        print(f"{length:8d}" + "".join(f"{value:12.2f}" for value in values))
    write_report(arguments.json, {"predicted": paper, "measured": growth})


if __name__ == "__main__":
    main()
