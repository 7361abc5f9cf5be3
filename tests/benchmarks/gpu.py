"""What a GPU must show: memory, speed, gradients, resuming, two processes, compiled parts.

    python tests/benchmarks/gpu.py [--json FILE] [--minutes 6] [--sections memory ...]

It needs torch 2.11 or later, torchvision and this package alone: frames are random, so there are
neither data nor a decoder. On a GPU the encoder is R(2+1)D-34 at the paper's size, with random
weights. After `--minutes` no further section is begun, so that all of it takes at most 8 minutes.
`--tiny --device cpu` tries every section in half a minute of processor time on any machine.

    memory      GB a video, predicted and measured: fp32, bf16, with adapters, checkpointed, and
                with a feature bank
    speed       seconds of a step and of a pass without gradient, and their ratio
    schemes     one pass over all snippets, gradient checkpointing, the published three passes and
                this engine: seconds and memory of a step of one video
    gradient    deviation of the losses and gradients of a step on this device from those on the CPU
    resume      deviation of weights after a step from a saved state from those without a stop
    processes   deviation of a step of two processes on this device, over gloo, from that of one
    compile     seconds of a step with `torch.compile`, and those of the first one
    graphs      seconds of pass 1 as a CUDA graph over chunks of one size
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

if importlib.util.find_spec("av") is None:
    # Nothing here decodes, so that anything can stand in for PyAV's modules.
    for module in ("", ".error", ".format", ".stream", ".video", ".video.frame"):
        sys.modules[f"av{module}"] = MagicMock(__version__="0")
    sys.modules["av.video.reformatter"] = MagicMock()

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detector import Whole, as_published, seconds_of
from report import machine, write_report
from torch import Tensor

from etadlite.base import distributed
from etadlite.base.devices import is_out_of_memory, synchronize
from etadlite.base.errors import first_line
from etadlite.base.gpu import release_memory
from etadlite.config import Settings
from etadlite.encoders.speed import compile_parts
from etadlite.memory import measure
from etadlite.memory.measurement import measure_step, random_bank, random_batch
from etadlite.memory.plan import plan
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.training.loop import make_optimizer
from etadlite.training.resume import load_state
from etadlite.training.state import Progress, Training, save_state
from etadlite.training.step import train_step

GB = 1e9
FEW = ("encoder.train=adapters", "encoder.frozen_dtype=bf16")
MEMORY = {
    "fp32": ("training.precision=fp32",),
    "bf16": ("training.precision=bf16",),
    "bf16, prefix on host": ("training.precision=bf16", "encoder.keep_prefix=host"),
    "bf16, adapters": ("training.precision=bf16", *FEW),
    "bf16, checkpointed": ("training.precision=bf16", "encoder.checkpointing=true"),
    "bf16, bank": ("training.precision=bf16", "sampling.others=bank"),
}
TINY = (
    "data.snippets=8",
    "data.frames=4",
    "data.decode_size=[16, 16]",
    "data.crop=16",
    "detector.max_duration=8",
    "detector.width=32",
    "training.batch_size=2",
    "encoder.chunk_size=2",
)


def settings_of(device: str, tiny: bool, *changes: str) -> Settings:
    """The settings of a step; fp32 unless the changes say otherwise."""
    common = (f"device={device}", "training.precision=fp32", "encoder.weights=null")
    if tiny:
        return preset("e2e_stickfigures", [*common, *TINY, *changes])
    return preset("e2e_anet_tsp", [*common, "encoder.channels_last=true", *changes])


def ready(settings: Settings, device: str | None = None) -> tuple[System, Any, Any, Any]:
    """System, optimizer, batch and bank; the same for the same settings on every device."""
    torch.manual_seed(0)
    system = System(settings, pretrained=False).to(device or settings.device).train()
    bank = random_bank(settings) if settings.sampling.others == "bank" else None
    return system, make_optimizer(system, settings.training), random_batch(settings), bank


def memory(device: str, tiny: bool) -> dict[str, Any]:
    """Predicted and measured GB a video."""
    found = {}
    for name, changes in MEMORY.items():
        settings = settings_of(device, tiny, *changes)
        predicted, measured = plan(settings).rows, measure_step(settings).rows
        release_memory()
        each = settings.training.batch_size * GB
        found[name] = {
            "predicted": predicted.total / each,
            "measured": measured.total / each,
            "ratio": predicted.total / measured.total,
            "parts": {"predicted": predicted.stack(), "measured": measured.stack()},
        }
    return found


def speed(device: str, tiny: bool) -> dict[str, Any]:
    """Seconds of a step and of a pass with one video, taking turns."""
    found = {}
    for name in ("fp32", "bf16", "bf16, adapters", "bf16, bank"):
        settings = settings_of(device, tiny, *MEMORY[name], "training.batch_size=1")
        system, optimizer, batch, bank = ready(settings)
        half = settings.encoder_precision == "bf16"

        def step(given: tuple = (system, batch, optimizer, settings, bank)) -> None:
            train_step(*given)

        def no_gradient(system: System = system, batch: Any = batch, half: bool = half) -> None:
            with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=half):
                system.encoder.encode(batch.inputs)

        seconds = seconds_of({"step": step, "pass": no_gradient}, device, 1 if tiny else 3)
        found[name] = seconds | {"step over pass": seconds["step"] / seconds["pass"]}
    return found


SCHEMES = ("one pass", "checkpointing", "published", "engine", "engine, bf16")


def schemes(device: str, tiny: bool) -> dict[str, Any]:
    """Seconds and memory of a step of one video, in fp32 except the last."""
    found: dict[str, Any] = {}
    for name in SCHEMES:
        changes = ["training.batch_size=1"]
        changes += ["encoder.keep_prefix=nothing"] if name == "published" else []
        changes += ["training.precision=bf16"] if "bf16" in name else []
        try:
            found[name] = scheme(name, settings_of(device, tiny, *changes), 1 if tiny else 2)
        except RuntimeError as error:
            if not is_out_of_memory(error) and "emory" not in str(error):
                raise
            found[name] = {"out of memory": first_line(error)}
        release_memory()
    return found


def scheme(name: str, settings: Settings, repeats: int) -> dict[str, float]:
    """One of the schemes."""
    system, optimizer, batch, _ = ready(settings)
    if name in ("one pass", "checkpointing"):
        chunk = settings.encoder.chunk_size if name == "checkpointing" else None
        system.encoder = Whole(system.encoder.encoder, chunk)

    def step() -> None:
        train_step(system, batch, optimizer, settings)

    with as_published() if name == "published" else nullcontext():
        seconds = seconds_of({"step": step}, settings.device, repeats)
        with measure(system, optimizer, batch.inputs) as measured:
            step()
    return {"seconds": seconds["step"], "GB": measured.rows.total / GB}


def after_a_step(
    settings: Settings, device: str, part: slice = slice(None)
) -> tuple[dict[str, float], list[Tensor]]:
    """The losses of a step of some videos of the batch, and its gradients on the CPU."""
    system, optimizer, batch, bank = ready(settings, device)
    names = ("names", "inputs", "actions", "labels", "durations", "seeds", "indices")
    batch = batch._replace(**{name: getattr(batch, name)[part] for name in names})
    record = train_step(system, batch, optimizer, settings, bank)
    trained = [p for p in system.parameters() if p.requires_grad]
    return record, [p.grad.cpu() for p in trained if p.grad is not None]


def deviations(ours: tuple, theirs: tuple) -> dict[str, float]:
    """The largest relative differences of two steps' losses and gradients."""
    losses = [abs(ours[0][name] / value - 1) for name, value in theirs[0].items() if value]
    gradients = [
        float((a - b).norm() / b.norm().clamp(min=1e-12))
        for a, b in zip(ours[1], theirs[1], strict=True)
    ]
    return {"losses": max(losses), "gradients": max(gradients)}


def exact(device: str, tiny: bool) -> Settings:
    """Settings of a small step without TF32, whose results can be compared."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    small = () if tiny else ("data.snippets=16", "detector.max_duration=16")
    return settings_of(device, tiny, *small, "training.batch_size=2")


def gradient(device: str, tiny: bool) -> dict[str, Any]:
    """This device against the CPU."""
    settings = exact(device, tiny)
    return deviations(after_a_step(settings, device), after_a_step(settings, "cpu"))


def resume(device: str, tiny: bool) -> dict[str, Any]:
    """Three steps with and without a stop after the second."""
    settings = exact(device, tiny)
    with tempfile.TemporaryDirectory() as folder:
        path, weights = Path(folder) / "state.safetensors", []
        for stopped in (False, True):
            system, optimizer, batch, _ = ready(settings)
            training = Training(settings, settings, system, optimizer, 2, Progress())
            if stopped:
                load_state(path, training)
            else:
                for _ in range(2):
                    train_step(system, batch, optimizer, settings)
                save_state(path, training)
            train_step(system, batch, optimizer, settings)
            weights.append([value.cpu() for value in system.state_dict().values()])
    pairs = [(a, b) for a, b in zip(*weights, strict=True)]
    return {
        "equal bits": all(torch.equal(a, b) for a, b in pairs),
        "deviation": max(float((a - b).abs().max()) for a, b in pairs if a.is_floating_point()),
    }


def processes(device: str, tiny: bool) -> dict[str, Any]:
    """Two processes with a video each against one process with both."""
    alone = after_a_step(exact(device, tiny), device)
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            one_of_two, (folder, device, tiny), nprocs=2, start_method="spawn", join=True
        )
        together = torch.load(Path(folder) / "0.pt", weights_only=False)
    return deviations(together, alone)


def one_of_two(rank: int, folder: str, device: str, tiny: bool) -> None:
    """A step of one process; the sums over both are written down."""
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    assert distributed.world_size() == 2
    found = after_a_step(exact(device, tiny), device, slice(rank, rank + 1))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def compiled(device: str, tiny: bool) -> dict[str, Any]:
    """A plain step against one with a compiled encoder."""
    settings = settings_of(device, tiny, "training.batch_size=1")
    found = {}
    for name in ("plain", "compiled"):
        system, optimizer, batch, _ = ready(settings)
        if name == "compiled":
            # Code for a CPU needs a compiler, which a small machine may lack.
            compile_parts(system.encoder.encoder, "eager" if device == "cpu" else "inductor")

        def step(given: tuple = (system, batch, optimizer, settings)) -> None:
            train_step(*given)

        began = time.perf_counter()
        step()
        synchronize(torch.device(device))
        first = time.perf_counter() - began
        seconds = seconds_of({"step": step}, device, 1 if tiny else 3)["step"]
        found[name] = {"first": first, "seconds": seconds}
    return found


def graphs(device: str, tiny: bool) -> dict[str, Any]:
    """Chunks through the encoder one by one against a captured graph of one chunk."""
    settings = settings_of(device, tiny, "training.batch_size=1")
    system, _, batch, _ = ready(settings)
    encoder, size = system.encoder.encoder, settings.encoder.chunk_size
    chunks = batch.inputs[0].to(device).split(size)
    if device != "cuda":
        with torch.no_grad():
            features = torch.cat([encoder(chunk) for chunk in chunks])
        return {"needs a GPU": list(features.shape)}
    given, graph = chunks[0].clone(), torch.cuda.CUDAGraph()
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # a graph is captured after the kernels have been chosen
                encoder(given)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            taken = encoder(given)

        def plain() -> Tensor:
            return torch.cat([encoder(chunk) for chunk in chunks])

        def replayed() -> Tensor:
            features = []
            for chunk in chunks:
                given.copy_(chunk)
                graph.replay()
                features.append(taken.clone())
            return torch.cat(features)

        difference = float((plain() - replayed()).abs().max())
        seconds = seconds_of({"plain": plain, "graph": replayed}, device, 3)
    return seconds | {"difference": difference}


SECTIONS: dict[str, Callable[[str, bool], dict[str, Any]]] = {
    "memory": memory,
    "speed": speed,
    "schemes": schemes,
    "gradient": gradient,
    "resume": resume,
    "processes": processes,
    "compile": compiled,
    "graphs": graphs,
}


def main() -> None:
    """Run the sections and report; one that fails says why, and the others go on."""
    parser = argparse.ArgumentParser(description="What a GPU must show.")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=[*SECTIONS])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes")
    given = parser.parse_args()
    about, began = machine(), time.monotonic()
    print(f"{about['device']}, torch {about['versions']['torch']}")
    found: dict[str, Any] = {}
    for name in given.sections:
        started = time.monotonic()
        if started - began > 60 * given.minutes:
            found[name] = {"left out": "no time was left"}
        else:
            try:
                found[name] = SECTIONS[name](given.device, given.tiny)
            except Exception as error:
                found[name] = {"failed": f"{type(error).__name__}: {first_line(error)}"}
            release_memory()
        taken = time.monotonic() - started
        print(f"{name} ({taken:.0f} s)", *rows(found[name]), sep="\n", flush=True)
        report = {"tiny": given.tiny, "device": given.device, "sections": found}
        write_report(given.json, report)
    if any("failed" in section for section in found.values()):
        raise SystemExit(1)


def rows(section: dict[str, Any]) -> list[str]:
    """The lines of a section."""
    lines = []
    for name, value in section.items():
        if isinstance(value, dict):
            parts = (f"{k} {v:.4g}" for k, v in value.items() if isinstance(v, float))
            text = ", ".join(parts) or str(next(iter(value.values())))
        else:
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
        lines.append(f"  {name:<24}{text}")
    return lines


if __name__ == "__main__":
    main()
