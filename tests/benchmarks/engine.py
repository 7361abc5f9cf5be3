"""End-to-end training many ways: seconds and memory of a step, side by side.

    python tests/benchmarks/engine.py [--models tiny r2plus1d_18] [--variants ...]
        [--repeats 3] [--json FILE] [--set KEY=VALUE ...]

Each variant runs in a process of its own, on the same random frames and the same detector:

    naive         one pass over all snippets, back-propagation through it
    checkpointed  the same with gradient checkpointing, chunk after chunk
    published     the three passes as published: fp32, every sampled snippet encoded twice in full,
                  torchvision's RoIAlign, video decoded at full size and then resized
    engine fp32   ours in fp32: the frozen stages run once for each snippet
    engine        ours, in the precision and layout that are measured to be fastest here
    engine once   engine with encoder.keep_prefix=graph: the sampled snippets are encoded once
    bank          engine with sampling.others=bank: only the sampled snippets are encoded
    bank once     bank with encoder.keep_prefix=graph: these are encoded once, not twice
    adapters      engine with encoder.train=adapters
    compiled      engine with encoder.compile=true; the first step, which compiles, is timed, too
    given back    engine, but the C library gives freed memory back to the system, as it does unless
                  `keep_freed_memory` is called: every page of it is a fault when it is used again

The pass without gradient, of which a step is a multiple, is always over all snippets.
Seconds on a CPU are processor time by the number of threads. A second table decodes one video both
ways. On a GPU the models have the paper's size.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detector import Whole, as_published, seconds_of
from report import machine, write_report
from torchvision.transforms import v2

from etadlite.base.devices import keep_freed_memory
from etadlite.config import Settings
from etadlite.data.video import Video
from etadlite.encoders.build import settle_speed
from etadlite.memory import measure
from etadlite.memory.measurement import peak_memory_bytes, random_bank, random_batch
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.stickfigures.dataset import write_video
from etadlite.training.loop import make_optimizer
from etadlite.training.step import train_step

VARIANTS = ("naive", "checkpointed", "published", "engine fp32", "engine", "bank", "bank once")
MODELS = ("tiny", "r2plus1d_18", "r2plus1d_34", "videomae_l")
OTHERS = ("engine once", "adapters", "compiled", "given back")
SNIPPETS_ON_CPU = {"r2plus1d_18": 16, "r2plus1d_34": 40, "videomae_l": 4}
OF_VIT = (  # all blocks are trained; their activations are the most, so they are computed twice
    *("data.crop=224", "data.decode_size=[224,224]", "detector.in_channels=1024"),
    *("encoder.frozen_stages=null", "encoder.checkpointing=true", "encoder.chunk_size=1"),
)
OWN = {  # what a variant changes
    "published": ("encoder.keep_prefix=nothing",),
    "engine once": ("encoder.keep_prefix=graph",),
    "bank": ("sampling.others=bank",),
    "bank once": ("sampling.others=bank", "encoder.keep_prefix=graph"),
    "adapters": ("encoder.train=adapters",),
    "compiled": ("encoder.compile=true",),
}


def settings_of(model: str, variant: str, device: str, changes: Sequence[str] = ()) -> Settings:
    """One step's settings: the presets' own, with fewer snippets where a CPU would take hours."""
    own = {"naive": "fp32", "checkpointed": "fp32", "published": "fp32", "engine fp32": "fp32"}
    every = [f"device={device}", f"training.precision={own.get(variant, 'auto')}"]
    every += OWN.get(variant, ())
    if model == "tiny":
        return preset("e2e_stickfigures", [*every, *changes])
    every += ["encoder.weights=null", f"encoder.name={model}", "sampling.snippet_ratio=0.3"]
    every += [f"encoder.channels_last={'false' if variant in own else 'null'}"]
    every += OF_VIT if model == "videomae_l" else ()
    if device == "cpu":
        cells = SNIPPETS_ON_CPU[model]
        every += ["training.batch_size=1", f"data.snippets={cells}"]
        every += [f"detector.max_duration={cells}"]
    return preset("e2e_anet_tsp", [*every, *changes])


def measure_variant(
    model: str, variant: str, device: str, repeats: int, changes: Sequence[str]
) -> dict[str, Any]:
    """Seconds of a step and of a pass without gradient, taking turns, and the step's memory."""
    settings = settings_of(model, variant, device, changes)
    if variant != "given back":
        keep_freed_memory()
    settings = settle_speed(settings, torch.device(device))
    torch.manual_seed(0)
    system = System(settings, pretrained=model == "tiny").to(device).train()
    sequential, batch = system.encoder, random_batch(settings)
    if variant in ("naive", "checkpointed"):
        chunk = settings.encoder.chunk_size if variant == "checkpointed" else None
        system.encoder = Whole(sequential.encoder, chunk)
    optimizer = make_optimizer(system, settings.training)
    bank = random_bank(settings) if settings.sampling.others == "bank" else None
    half = settings.training.precision == "bf16"
    cast = torch.autocast(device, torch.bfloat16, enabled=half)
    threads = torch.get_num_threads() if device == "cpu" else 1

    def step() -> None:
        train_step(system, batch, optimizer, settings, bank)

    def no_gradient() -> None:
        with torch.no_grad(), cast:
            sequential.encode(batch.inputs)

    with as_published() if variant == "published" else nullcontext():
        # Of processor time, other work on the machine takes no part.
        clock = time.process_time if device == "cpu" else time.perf_counter
        begun = time.perf_counter()
        if variant == "compiled":  # by other processes, so that this one's time would miss it
            step()
            no_gradient()
        compiled = time.perf_counter() - begun
        seconds = seconds_of({"step": step, "pass": no_gradient}, device, repeats, clock)
        seconds = {name: taken / threads for name, taken in seconds.items()}
        faults = page_faults()
        step()
        faults = page_faults() - faults
        # What compiled code holds is not seen operator by operator.
        memory = 0
        if variant != "compiled":
            with measure(system, optimizer, batch.inputs) as measured:
                step()
            memory = measured.rows.total - measured.rows.inputs
    size = settings.data
    return {
        "batch": settings.training.batch_size,
        "frames": [size.snippets, size.frames, size.crop, size.crop],
        "precision": settings.training.precision,
        "channels_last": settings.encoder.channels_last,
        "seconds_per_step": seconds["step"],
        "seconds_per_pass": seconds["pass"],
        "step_over_pass": seconds["step"] / seconds["pass"],
        "memory": memory,
        "resident": peak_memory_bytes(),
        "page_faults": faults,
    } | ({"seconds_to_compile": compiled} if variant == "compiled" else {})


def page_faults() -> int:
    """How many pages this process has asked the system for so far; 0 where it does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure_decoding(repeats: int) -> dict[str, float]:
    """Seconds and bytes of 128 x 16 frames at the target size, and at full size, then resized."""
    height, width, small = 256, 340, (128, 171)
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None] * [1, 2, 3]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, (((ramp + 3 * n) % 256).astype(np.uint8) for n in range(1800)), fps=15)

        def at_size() -> None:
            Video(path).snippets(128, 16, small)

        def then_resized() -> None:
            full = Video(path).snippets(128, 16, (height, width))
            for snippet in full:
                v2.functional.resize(snippet.transpose(0, 1), list(small))

        seconds = seconds_of({"ours": at_size, "resized": then_resized}, "cpu", repeats)
    pixels = 128 * 16 * 3
    return {
        "decoded at the target size": seconds["ours"],
        "decoded in full, then resized": seconds["resized"],
        "ratio": seconds["resized"] / seconds["ours"],
        "bytes at the target size": pixels * small[0] * small[1],
        "bytes in full": pixels * height * width,
    }


def in_own_process(
    model: str, variant: str, device: str, repeats: int, changes: Sequence[str]
) -> dict[str, Any]:
    """Run this file for one variant; a process that fails says why instead of numbers."""
    command = [sys.executable, __file__, "--models", model, "--variant", variant]
    command += ["--device", device, "--repeats", str(repeats)]
    command += ["--set", *changes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def row(name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    if "failed" in found:
        return f"  {name:<13} failed: {found['failed']}"
    layout = ", channels last" if found["channels_last"] else ""
    if "seconds_to_compile" in found:
        layout += f", {found['seconds_to_compile']:.0f} s to compile"
    return (
        f"  {name:<13}{found['seconds_per_step']:9.2f} s{found['step_over_pass']:11.2f}"
        f"{found['memory'] / 2**20:8.0f} MiB{found['resident'] / 2**20:9.0f} MiB"
        f"{found['page_faults']:9,}"
        f"  {found['precision']}{layout}"
    )


def main() -> None:
    """Measure every variant of every model and report."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description="Time end-to-end training many ways.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["tiny", "r2plus1d_18"])
    every = (*VARIANTS, *OTHERS)
    parser.add_argument("--variants", nargs="+", choices=every, default=VARIANTS)
    parser.add_argument("--variant", choices=every, help="this one alone, as JSON")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("--device", default=device)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="changes to all variants")
    given = parser.parse_args()
    if given.variant:
        one = given.models[0], given.variant, given.device, given.repeats, given.set
        print(json.dumps(measure_variant(*one)))
        return
    about = machine()
    print(f"{about['device']}, {about['threads']} threads, torch {about['versions']['torch']}")
    found: dict[str, Any] = {}
    for model in given.models:
        size = settings_of(model, "engine", given.device, given.set)
        shape = (size.data.snippets, size.data.frames, size.data.crop, size.data.crop)
        print(f"{model}: batch {size.training.batch_size} of {'x'.join(map(str, shape))}")
        print(f"  {'':<13}{'step':>11}{'step/pass':>11}{'memory':>12}{'resident':>13}{'faults':>9}")
        found[model] = {}
        for variant in given.variants:
            result = in_own_process(model, variant, given.device, given.repeats, given.set)
            found[model][variant] = result
            print(row(variant, result), flush=True)
    decoding = measure_decoding(given.repeats)
    print(f"decoding at the target size is {decoding['ratio']:.1f} times as fast as resizing after")
    write_report(given.json, {"variants": found, "decoding": decoding})


if __name__ == "__main__":
    main()
