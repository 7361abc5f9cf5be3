"""Hours of the full trainings: operations are counted, the published hours are the clock.

    python tests/benchmarks/hours.py [--json FILE] [--annotations thumos_14_anno.json]
    python tests/benchmarks/hours.py --nodes 4 --gpus 4 --gbit 100

Counted, in multiplications and additions: one snippet of 16x112x112 through R(2+1)D-34, and the
part of it that is trained. With them, what a video of a training costs as published (all snippets
without gradient, the sampled ones whole with gradient) and here (their frozen part only once).
From the published 18 hours on ActivityNet-1.3 follows how fast that GPU was, and from this the
hours of other trainings on it: predicted, of the encoder alone, if decoding keeps up.

With --nodes it counts what a step of ActivityNet-1.3 takes on several machines, with one video a
GPU: what is read and decoded, what is encoded, and what the GPUs send each other for the sum of
their gradients (a ring passes every gradient on twice). The speed of a GPU is again the published
one; the network's is given.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from report import write_report
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from etadlite.config import Settings
from etadlite.data.split import read_split
from etadlite.data.windows import action_frames, actions_inside, windows_of
from etadlite.encoders import R2Plus1D, freeze
from etadlite.memory.fake_passes import fake_system
from etadlite.presets import preset

ACTIVITYNET_VIDEOS = 10_024
PUBLISHED_HOURS = 18.0


def operations(run: Callable[[], object]) -> int:
    """Multiplications and additions of a computation."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def count_encoder(settings: Settings) -> dict[str, int]:
    """Operations of one snippet: the frozen part, the rest, and that with its backward pass."""
    side = settings.data.crop
    found = {}
    with FakeTensorMode():  # shapes without numbers
        encoder = freeze(R2Plus1D(34), settings.encoder.frozen_stages).train()
        frames = torch.zeros(1, 3, settings.data.frames, side, side, dtype=torch.uint8)
        x = encoder.encode_prefix(frames)
        found["frozen"] = operations(lambda: encoder.encode_prefix(frames))
        found["rest"] = operations(lambda: encoder.encode_suffix(x))
        found["trained"] = operations(lambda: encoder.encode_suffix(x).sum().backward())
    return found


def operations_a_sample(settings: Settings, snippet: dict[str, int], *, published: bool) -> float:
    """Operations of the encoder in a training step, for one video or window."""
    sampled = settings.sampling.snippet_ratio * settings.data.snippets
    again = snippet["trained"] + (snippet["frozen"] if published else 0)
    return settings.data.snippets * (snippet["frozen"] + snippet["rest"]) + sampled * again


def count_windows(annotations: Path) -> int:
    """Windows with actions that one epoch on THUMOS-14 trains on."""
    data = preset("e2e_thumos_tsp", [f"data.annotations={annotations}"]).data
    cut = {"size": data.snippets, "stride": data.window_stride, "overlap": data.window_overlap}
    return sum(
        bool(actions_inside(action_frames(video), window, data.window_inside))
        for video in read_split(data, training=True)
        for window in windows_of(video.frames, **cut)
    )


def count_parameters(settings: Settings) -> int:
    """Parameters with a gradient: of the encoder's trained part, and of the detector."""
    system = fake_system(settings.changed({"encoder.weights": None, "device": "cpu"}))
    return sum(p.numel() for p in system.parameters() if p.requires_grad)


def several_machines(
    settings: Settings, videos: int, work: float, speed: float, nodes: int, gpus: int, gbit: float
) -> dict[str, float]:
    """Count an epoch and a step of one video a GPU; bytes, operations and seconds are a step's.

    `work` is the operations of a video, `speed` operations a second of a GPU, and `gbit` what a GPU
    can send in 10^9 bits a second.
    """
    data, count = settings.data, nodes * gpus
    pixels = data.snippets * data.frames * 3
    seconds = work / speed
    gradients = 4 * count_parameters(settings)  # bytes, in fp32
    sent = 2 * (count - 1) / count * gradients
    steps = -(-videos // count)
    reducing = 8 * sent / (gbit * 1e9)
    return {
        "gpus": count,
        "steps_an_epoch": steps,
        "videos_a_second_and_node": gpus / (seconds + reducing),
        "frames_a_second_and_node": gpus * data.snippets * data.frames / (seconds + reducing),
        "decoded_bytes_a_video": pixels * data.decode_size[0] * data.decode_size[1],
        "bytes_to_a_gpu": pixels * data.crop**2,
        "operations": work,
        "encoding_seconds": seconds,
        "gradient_bytes": gradients,
        "sent_bytes_a_gpu": sent,
        "reducing_seconds": reducing,
        "hours": steps * settings.training.epochs * (seconds + reducing) / 3600,
    }


def main() -> None:
    """Count, predict and report."""
    parser = argparse.ArgumentParser(description="Hours of the full trainings, predicted.")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--annotations", type=Path, help="of THUMOS-14, to count its windows")
    parser.add_argument("--nodes", type=int, help="machines of a training on ActivityNet-1.3")
    parser.add_argument("--gpus", type=int, default=4, help="GPUs of a machine")
    parser.add_argument(
        "--gbit", type=float, default=100, help="10^9 bits a second that a GPU sends"
    )
    arguments = parser.parse_args()
    samples = {"e2e_anet_tsp": ACTIVITYNET_VIDEOS}
    if arguments.annotations is not None:
        samples["e2e_thumos_tsp"] = count_windows(arguments.annotations)
    snippet = count_encoder(preset("e2e_anet_tsp"))
    whole = snippet["frozen"] + snippet["rest"]
    print(
        f"a snippet: {whole / 1e9:.0f} G operations, {snippet['rest'] / whole:.0%} of them trained"
    )
    paper = preset("e2e_anet_tsp")
    work = operations_a_sample(paper, snippet, published=True)
    speed = work * ACTIVITYNET_VIDEOS * paper.training.epochs / (PUBLISHED_HOURS * 3600)
    print(f"18 hours as published are {speed / 1e12:.1f} T operations a second")
    found = {"snippet": snippet, "operations_a_second": speed, "hours": {}}
    for name, count in samples.items():
        settings = preset(name)
        for how in ("published", "ours"):
            each = operations_a_sample(settings, snippet, published=how == "published")
            hours = each * count * settings.training.epochs / speed / 3600
            found["hours"][f"{name}, {how}"] = hours
            print(f"{name} ({count:,} samples), {how}: {each / 1e12:.1f} T a sample, {hours:.1f} h")
    if arguments.nodes is not None:
        ours = operations_a_sample(paper, snippet, published=False)
        machines = (arguments.nodes, arguments.gpus, arguments.gbit)
        found["machines"] = several_machines(paper, ACTIVITYNET_VIDEOS, ours, speed, *machines)
        for what, value in found["machines"].items():
            print(f"{what:<26}{value:>12,.4g}")
    write_report(arguments.json, found)


if __name__ == "__main__":
    main()
