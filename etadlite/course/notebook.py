"""What all notebooks of the course share: parameters, pictures, progress, metrics."""

import io
import os
import platform
import re
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from IPython.display import Image, display
from matplotlib.figure import Figure
from PIL import Image as Picture

from etadlite.base.devices import free_memory, resolve_device
from etadlite.base.errors import InputError, did_you_mean
from etadlite.base.files import write_json
from etadlite.config import Settings, flat
from etadlite.course.parts import FILE, part_of
from etadlite.memory.measurement import peak_memory_bytes
from etadlite.presets import placed, preset
from etadlite.runs.side_by_side import Show, epoch_lines, following
from etadlite.stickfigures.dataset import SIZES
from etadlite.viz.curves import draw_curves
from etadlite.viz.style import pixels, save
from etadlite.viz.widgets import Explorer

PARAMETERS = ("profile", "data_root", "out_dir", "seed", "device", "interactive")
DPI = 90  # dots per inch of a displayed picture; twelve inches fill a page
DEVICES = ("auto", "cpu", "cuda", "mps")


class Profile(NamedTuple):
    """How much a notebook does."""

    size: str  # of the generated data set
    changes: tuple[str, ...] = ()  # to settings
    memory_gib: float = 1.0  # free memory needed at start


PROFILES = {
    "smoke": Profile("smoke", ("training.epochs=1",)),
    # Fewer epochs than the preset has, so that the whole notebook takes less than ten minutes.
    "laptop": Profile("laptop", ("training.epochs=10", "training.test_every=5"), 2.0),
    "full": Profile("large", memory_gib=4.0),
}


def contents(size: str) -> str:
    """Describe a generated data set: training + test videos."""
    return f"{SIZES[size].training} + {SIZES[size].validation} videos"


class RealData(NamedTuple):
    """A published data set for the profile `full`."""

    name: str
    presets: tuple[str, ...]  # that the notebook can train, the usual one first
    train: str  # the notebook's parameter: a preset and changes, as after `etadlite train`


@dataclass(frozen=True)
class Run:
    """One execution of a notebook."""

    profile: str
    size: str  # of the generated data set
    data: Path  # folder of the data set
    contents: str  # of that folder, in words
    out: Path  # folder for everything that the notebook writes
    seed: int
    device: str
    interactive: bool  # True for bars and sliders, False for log lines and static pictures
    changes: tuple[str, ...]  # assignments to the settings that follow from profile and device
    own: Path  # the student's module
    settings: Settings | None = None  # of the profile `full` on a published data set
    started: float = field(default_factory=time.perf_counter)

    def show(self, figure: Figure, name: str, alt: str) -> Image:
        """Save a figure as pictures/NAME.png; return a small picture with alternative text."""
        save(figure, self.out / "pictures" / f"{name}.png")
        return _displayed(figure, alt)

    def show_file(self, path: Path, alt: str) -> Image:
        """Return a picture that a run has written, small, with alternative text."""
        picture = Picture.open(path).convert("RGB")
        picture.thumbnail((12 * DPI, 12 * DPI))
        return _small(picture, alt)

    def explore(self, explorer: Explorer, name: str) -> None:
        """Show the controls and their picture in a browser, else a grid of examples."""
        if self.interactive:
            display(explorer.live())
        else:
            display(self.show(explorer.grid(), name, explorer.alt))

    def mine(self, exercise: str, attempt: Callable | None = None) -> Callable:
        """Return the student's function, or the package's, and print which one it is.

        An `attempt` that passes its checker is saved in the student's module, which later notebooks
        read, too. Without an attempt the module's function is used, if it passes.
        """
        function, line = part_of(self.own, exercise, attempt)
        print(line)
        return function

    def watching(
        self, name: str, folder: Path, epochs: int, *, resume: bool = False
    ) -> AbstractContextManager[None]:
        """Show the progress of a training that writes its metrics to `folder` meanwhile.

        In a browser its curves are drawn again every few seconds, else a line per epoch is printed.
        With `resume`, or beside a state, existing metrics belong to the same training and are kept.
        """
        return following(folder, self.watch(name, epochs), resume=resume)

    def watch(self, name: str, epochs: int) -> Show:
        """Return what shows a training's records: curves in a browser, else a line per epoch."""
        return _live_curves(name) if self.interactive else epoch_lines(name, epochs)

    def finish(self, results: Mapping[str, float], *, processes: int = 0, **measured: Any) -> None:
        """Write metrics.json into `out`: what the run was, its cost, and its results.

        `results` are for the notebook's card: name with its unit -> number. So many `processes` at
        a time have helped, and their memory counts, too. The other measurements are as JSON takes
        them; `kept` names results of an earlier run, which are not recorded.
        """
        memory = peak_memory_bytes() + processes * peak_memory_bytes(of_children=True)
        facts = {
            "profile": self.profile,
            "data": self.contents,
            "seed": self.seed,
            "device": self.device,
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("etadlite", "torch", "numpy")},
            "minutes": round((time.perf_counter() - self.started) / 60, 2),
            "processor_minutes": round(sum(os.times()[:4]) / 60, 2),
            "memory_gib": round(memory / 2**30, 2) or None,
            "results": dict(results),
        }
        write_json(self.out / "metrics.json", facts | measured)
        print(f"{facts['minutes']:.1f} minutes, {facts['memory_gib']} GiB at most")


def _displayed(figure: Figure, alt: str) -> Image:
    return _small(Picture.fromarray(pixels(figure, DPI)), alt)


def _small(picture: Picture.Image, alt: str) -> Image:
    """Return the smaller of a PNG of 256 colours, good for charts, and a JPEG, good for frames."""
    files = {"png": io.BytesIO(), "jpeg": io.BytesIO()}
    coarse = picture.quantize(256, dither=Picture.Dither.NONE)
    coarse.save(files["png"], "png", optimize=True)
    picture.save(files["jpeg"], "jpeg", optimize=True, quality=75)
    kind = min(files, key=lambda kind: len(files[kind].getvalue()))
    return Image(files[kind].getvalue(), format=kind, alt=alt)


def _live_curves(name: str) -> Show:
    """Return a function that draws a training's records, always in the same place."""

    def picture(records: list[dict[str, Any]]) -> Image:
        alt = f"Training loss and average mAP of {name} so far, over epochs"
        return _displayed(draw_curves({name: records}), alt)

    place = display(picture([]), display_id=True)
    return lambda records: place.update(picture(records))


def known(what: str, name: str, names: Collection[str], cutoff: float = 0.6) -> str:
    """Return a name if it is one of `names`; else raise `InputError` and suggest the nearest."""
    if name not in names:
        near = did_you_mean(str(name), names, cutoff)
        raise InputError(f'there is no {what} "{name}"{near} (there are {", ".join(names)})')
    return name


def start(
    cells: Sequence[str],
    *,
    profile: str,
    data_root: str,
    out_dir: str,
    seed: int,
    device: str,
    interactive: bool | Literal["auto"],
    full: RealData | None = None,
) -> Run:
    """Check a notebook's parameters, seed torch, and print what the run will do.

    `cells` are those executed so far (IPython's `In`); they are searched for unknown parameters.
    `interactive="auto"` means True in JupyterLab and False under papermill. `full` is the published
    data set of the profile `full`; None stands for the large generated one.

    Raises:
        InputError: a parameter is unknown or wrong, or data, GPU or memory are missing.
    """
    given = "\n".join(cell for cell in cells if cell.startswith("# Parameters"))  # by papermill
    for name in re.findall(r"^(\w+) = ", given, re.MULTILINE):
        known("parameter", name, PARAMETERS if full is None else (*PARAMETERS, "train"))
    known("profile", profile, PROFILES)
    known("device", device, DEVICES)
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed must be a whole number from 0, not {seed!r}")
    if interactive not in (True, False, "auto"):
        raise InputError(f'interactive must be true, false or "auto", not {interactive!r}')
    size, changes, memory = PROFILES[profile]
    chosen = resolve_device(device).type
    root, settings = Path(data_root), None
    data, described = root / f"stickfigures_{size}", contents(size)
    if profile == "full" and full is not None:
        settings = _full_settings(full, root, chosen, seed)
        usual = full.train == full.presets[0]
        data, described = root, full.name if usual else f"{full.name}: {full.train}"
    elif full is not None and full.train != full.presets[0]:
        raise InputError(
            f'train="{full.train}" belongs to the profile full, and the profile is {profile}; add '
            "profile=full, or leave train out"
        )
    free = free_memory() / 2**30
    if free < memory:
        raise InputError(
            f"the profile {profile} needs {memory:.0f} GiB of free memory and {free:.1f} GiB are "
            "free; close other programs, or choose the profile smoke"
        )
    live = in_browser() if interactive == "auto" else bool(interactive)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    changes = (*changes, f"device={chosen}")
    own = _own_module(cells, out)
    run = Run(profile, size, data, described, out, seed, chosen, live, changes, own, settings)
    torch.manual_seed(seed)
    _introduce(run, device)
    return run


def in_browser() -> bool:
    """Return True if somebody sits in front of this kernel, False under papermill."""
    return "JPY_SESSION_NAME" in os.environ  # set by JupyterLab's server, which papermill lacks


def _own_module(cells: Sequence[str], out: Path) -> Path:
    """Return the student's module: beside the notebook; for papermill in `out`, a copy of it."""
    beside = Path(FILE)
    if not any(cell.partition("\n")[0].strip() == "# Parameters" for cell in cells):
        return beside
    if beside.exists():
        shutil.copyfile(beside, out / FILE)
    return out / FILE


def _full_settings(full: RealData, root: Path, device: str, seed: int) -> Settings:
    """Return the settings of the profile `full` with its data in `root`; refuse missing data."""
    try:
        name, *changes = shlex.split(full.train) or [""]
    except ValueError as error:
        raise InputError(f"train={full.train!r} is not understood: {error}") from None
    if name not in full.presets:
        raise InputError(
            f'train="{full.train}" does not begin with a preset of {full.name}: '
            f"{' or '.join(full.presets)}"
        )
    for own in ("seed", "device"):
        if any(change.startswith(f"{own}=") for change in changes):
            raise InputError(f"give {own} as a parameter of the notebook, not within train")
    settings = placed(preset(name), root).changed([*changes, f"device={device}", f"seed={seed}"])
    for setting, path in flat(settings.model_dump()).items():
        if isinstance(path, Path) and setting != "data.cache" and not path.exists():
            raise InputError(
                f"{path} ({setting}) is not there: the profile full needs the data set "
                f"{full.name} in data_root; notebooks/README.md says what belongs where"
            )
    encodes = settings.data.features is None and settings.encoder.name != "tiny"
    if encodes and device != "cuda":
        raise InputError(
            f"the profile full trains {settings.encoder.name} on {full.name} with an NVIDIA GPU, "
            f"and the device is {device}; choose the profile laptop, or a machine with such a GPU"
        )
    return settings


def _introduce(run: Run, asked: str) -> None:
    names = ("etadlite", "torch", "torchvision", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    threads = torch.get_num_threads()
    found = {
        "cpu": f"{threads} thread{'s' * (threads != 1)}; the models here are made for it",
        "cuda": "a graphics card was found",
        "mps": "an Apple graphics chip was found",
    }
    why = found[run.device] if asked == "auto" else f"as asked for with device={asked}"
    looks = "bars and sliders" if run.interactive else "log lines and still pictures"
    print(f"versions  Python {platform.python_version()}, {versions}")
    print(f"device    {run.device}: {why}")
    if run.device != "cuda":
        print("dtype     float32: half precision does not pay for an encoder this small")
    print(f"profile   {run.profile}: {run.contents}")
    print(f"output    {looks}; seed {run.seed}")
