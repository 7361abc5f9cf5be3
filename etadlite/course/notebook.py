"""What every notebook of the course does the same way: parameters, pictures, progress, metrics."""

import ast
import difflib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from IPython.display import Image, display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from etadlite.data.stickfigures import SIZES
from etadlite.errors import InputError
from etadlite.runs import read_metrics
from etadlite.training.system import resolve_device
from etadlite.viz.style import save

PARAMETERS = ("profile", "data_root", "out_dir", "seed", "device", "interactive")
DEVICES = ("auto", "cpu", "cuda", "mps")


class Profile(NamedTuple):
    """How much a notebook does.

    Attributes:
        size: of the generated data set.
        changes: settings that differ from the presets.
    """

    size: str
    changes: tuple[str, ...] = ()


PROFILES = {
    "smoke": Profile("smoke", ("training.epochs=1",)),
    # Fewer epochs than the preset, so that the whole notebook stays below ten minutes.
    "laptop": Profile("laptop", ("training.epochs=10", "training.test_every=5")),
    "full": Profile("large"),
}


@dataclass(frozen=True)
class Run:
    """One execution of a notebook.

    Attributes:
        profile: name of the profile.
        size: of the generated data set.
        data: folder of the generated data set.
        out: folder for everything that the notebook writes.
        seed: governs everything random.
        device: "cpu", "cuda" or "mps".
        interactive: True shows bars and sliders, False log lines and static pictures.
        changes: assignments to the settings: profile, device.
    """

    profile: str
    size: str
    data: Path
    out: Path
    seed: int
    device: str
    interactive: bool
    changes: tuple[str, ...]
    started: float = field(default_factory=time.perf_counter)

    def show(self, figure: Figure, name: str, alt: str) -> Image:
        """Save a figure as pictures/NAME.png and return it for display, with a text for `alt`."""
        return Image(save(figure, self.out / "pictures" / f"{name}.png").read_bytes(), alt=alt)

    def dial(
        self,
        draw: Callable[[float], Figure],
        values: Sequence[float],
        name: str,
        *,
        title: str,
        alt: str,
    ) -> None:
        """A slider over the values where there is a browser, else one picture of all of them.

        Args:
            draw: value -> figure.
            values: what the slider offers.
            name: of the static picture.
            title: says what a value means; "{}" is replaced by it.
            alt: describes the static picture.
        """
        grid = self.show(_side_by_side(draw, values, title), name, alt)
        if not self.interactive:
            display(grid)
            return
        import ipywidgets

        def redraw(value: float) -> None:
            picture = save(draw(value), self.out / "pictures" / f"{name}_now.png")
            display(Image(picture.read_bytes(), alt=alt))

        options = [(title.format(f"{value:.2f}"), value) for value in values]
        slider = ipywidgets.SelectionSlider(
            options=options, description=" ", continuous_update=False, readout=True
        )
        slider.layout.width = "80%"
        ipywidgets.interact(redraw, value=slider)

    @contextmanager
    def log_lines(self, name: str, folder: Path, epochs: int) -> Iterator[None]:
        """Print a line an epoch of the training that writes its metrics to `folder` meanwhile."""
        done = threading.Event()

        def follow() -> None:
            said, records, over = 0, [], False
            while not over:
                over = done.wait(1.0)  # looked at once more after the end
                if (folder / "metrics.jsonl").exists():
                    records = [r for r in read_metrics(folder) if "loss" in r]
                for epoch in range(
                    said + 1, int(records[-1]["epoch"] + 1e-9) + 1 if records else 0
                ):
                    losses = [r["loss"] for r in records if epoch - 1 < r["epoch"] <= epoch + 1e-9]
                    print(f"{name}: epoch {epoch:2d} of {epochs}, loss {np.mean(losses):.2f}")
                    said = epoch

        (folder / "metrics.jsonl").unlink(missing_ok=True)
        thread = threading.Thread(target=follow, daemon=True)
        if not self.interactive:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if thread.is_alive():
                thread.join()

    def facts(self) -> dict[str, Any]:
        """How this run was made and what it took, for the metrics file."""
        return {
            "profile": self.profile,
            "seed": self.seed,
            "device": self.device,
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("etadlite", "torch", "numpy")},
            "minutes": round((time.perf_counter() - self.started) / 60, 2),
            "memory_gib": peak_memory(),
        }


def start(
    cells: Sequence[str],
    *,
    profile: str,
    data_root: str,
    out_dir: str,
    seed: int,
    device: str,
    interactive: bool | Literal["auto"],
) -> Run:
    """Check a notebook's parameters and print what the run will be.

    Args:
        cells: the cells executed so far (IPython's `In`), searched for unknown parameters.
        profile: "smoke", "laptop" or "full".
        data_root: folder of the generated data sets.
        out_dir: folder for what the notebook writes.
        seed: governs everything random.
        device: "auto", "cpu", "cuda" or "mps".
        interactive: "auto" is True in JupyterLab and False under papermill.

    Raises:
        InputError: a parameter is unknown or its value does not fit.
    """
    for name in _assigned(cells):
        if name not in PARAMETERS:
            near = difflib.get_close_matches(name, PARAMETERS, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise InputError(
                f'there is no parameter "{name}"{hint} (there are {", ".join(PARAMETERS)})'
            )
    if profile not in PROFILES:
        raise InputError(f'there is no profile "{profile}"; choose one of {", ".join(PROFILES)}')
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed must be a whole number from 0, not {seed!r}")
    if interactive not in (True, False, "auto"):
        raise InputError(f'interactive must be true, false or "auto", not {interactive!r}')
    if device not in DEVICES:
        raise InputError(f'there is no device "{device}"; choose one of {", ".join(DEVICES)}')
    size, changes = PROFILES[profile]
    chosen = resolve_device(device).type
    # JupyterLab's server names its kernels' sessions; papermill starts kernels without a server.
    in_browser = "JPY_SESSION_NAME" in os.environ if interactive == "auto" else bool(interactive)
    run = Run(
        profile,
        size,
        Path(data_root) / f"stickfigures_{size}",
        Path(out_dir),
        seed,
        chosen,
        in_browser,
        (*changes, f"device={chosen}"),
    )
    run.out.mkdir(parents=True, exist_ok=True)
    _introduce(run, device)
    return run


def peak_memory() -> float | None:
    """The most memory that this process held at once, in GiB; None where the system can't tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def _introduce(run: Run, asked: str) -> None:
    names = ("etadlite", "torch", "torchvision", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    threads = torch.get_num_threads()
    why = {
        "cpu": f"{threads} thread{'s' * (threads != 1)}; the models here are made for it",
        "cuda": "a graphics card was found",
        "mps": "an Apple graphics chip was found",
    }[run.device]
    if asked != "auto":
        why = f"as asked for with device={asked}"
    size = SIZES[run.size]
    looks = "bars and sliders" if run.interactive else "log lines and still pictures"
    print(f"versions  Python {platform.python_version()}, {versions}")
    print(f"device    {run.device}: {why}")
    print("dtype     float32: half precision does not pay for an encoder this small")
    print(f"profile   {run.profile}: {size.training} training and {size.validation} test videos")
    print(f"output    {looks}; seed {run.seed}")


def _assigned(cells: Sequence[str]) -> list[str]:
    """Names that the parameters cells assign; papermill's begins with this comment."""
    return [
        target.id
        for cell in cells
        if cell.startswith("# Parameters")
        for statement in ast.parse(cell).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]


def _side_by_side(draw: Callable[[float], Figure], values: Sequence[float], title: str) -> Figure:
    """Four of the values as small pictures, two a row."""
    picked = [values[round(i)] for i in np.linspace(0, len(values) - 1, 4)]
    pictures = [_pixels(draw(value)) for value in picked]
    height = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    figure = Figure(figsize=(12, 12 * height + 0.6), layout="constrained")
    for axis, value, picture in zip(figure.subplots(2, 2).flat, picked, pictures, strict=True):
        axis.imshow(picture)
        axis.set_title(title.format(f"{value:.2f}"), fontsize=10)
        axis.axis("off")
        axis.set_anchor("N")
    return figure


def _pixels(figure: Figure) -> np.ndarray:
    """A figure as it is drawn on half the width, so that its text stays readable there."""
    figure.set_size_inches(6.6, figure.get_figheight() * 0.8)
    figure.set_dpi(200)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
