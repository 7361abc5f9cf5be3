"""What several test files share."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import av
import hypothesis
import pytest
import torch

from etadlite.base.weights import save_weights
from etadlite.cli import main
from etadlite.encoders import tiny_encoder
from etadlite.encoders.build import build_encoder
from etadlite.model import SequentialEncoder
from etadlite.prepare.extract import extract_features
from etadlite.presets import preset
from etadlite.runs.run import run_training
from etadlite.stickfigures.dataset import Size, make_dataset

# No test is timed: a busy machine must not fail one.
hypothesis.settings.register_profile("etadlite", deadline=None)
hypothesis.settings.load_profile("etadlite")

# Files that take long start first, so that two processes that share the files end together.
LONGEST_FIRST = (
    "test_notebooks",
    "test_rehearsal",
    "test_browser",
    "test_plan",
    "test_course",
    "test_resume",
    "test_command",
    "test_processes",
    "test_stickfigures",
    "test_robustness",
    "test_sampling",
    "test_convert",
    "test_encoders",
    "test_training",
    "test_sequential",
    "test_data_scripts",
)

# Processes that train are forked from a server that has imported everything and computed nothing:
# autograd does not work in a fork of a process that has used it.
multiprocessing.set_forkserver_preload(["etadlite.cli", "etadlite.runs.run"])

REPOSITORY = Path(__file__).resolve().parent.parent

# Assignments that shrink any preset's model, and its training to one epoch on the CPU.
SMALL = (
    "data.snippets=16",
    "detector.width=32",
    "detector.roi_size=8",
    "detector.hidden=16",
    "detector.head=16",
    "detector.max_duration=16",
    "training.epochs=1",
    "device=cpu",
)


def pytest_collection_modifyitems(items) -> None:
    """Order the files by `LONGEST_FIRST`; within a file the order stays."""
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def assert_engine_is_plain_back_propagation(encoder, frames, engines) -> None:
    """Compare features and gradients of a double-precision encoder with those without the engine.

    The snippets are uint8 [1, N, 3, F, H, W]; `engines` are pairs of a chunk size and what `keep`
    says. The gradient is that of a random weighting of the features, at ratio 1.
    """
    side = torch.randn(1, encoder.channels, frames.shape[1], dtype=torch.float64)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    plain = torch.autograd.grad((encoder(frames[0]).T[None] * side).sum(), trained)
    for chunk, keep in engines:
        engine = SequentialEncoder(encoder, chunk, ratio=1.0, keep=keep)
        features = engine(frames)
        torch.testing.assert_close(features[0].T, encoder(frames[0]).detach(), rtol=1e-9, atol=1e-9)
        found = torch.autograd.grad((features * side).sum(), trained)
        for ours, theirs in zip(found, plain, strict=True):
            torch.testing.assert_close(
                ours, theirs, rtol=1e-9, atol=1e-9 * theirs.abs().max() + 1e-12
            )


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, or a skip that says what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "google-chrome", "chrome")
    with playwright.sync_playwright() as started:
        own = started.chromium.executable_path
        found = own if os.path.exists(own) else next(filter(None, map(shutil.which, names)), None)
        if found is None:
            pytest.skip(f"no browser: neither playwright's own nor any of {', '.join(names)}")
        chromium = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened_offline(browser):
    """A function that opens a file in a browser without a network, and returns the page.

    The test fails if a page asks for anything that is not a file, or writes an error.
    """
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 800})
    wrong = []

    def asked(request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            wrong.append(request.url)

    context.on("request", asked)
    context.on("requestfailed", lambda request: wrong.append(f"{request.url} failed"))
    context.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    page = context.new_page()

    def opened(path: Path):
        page.goto(path.as_uri(), wait_until="load")
        assert not wrong, f"{path.name}: {wrong}"
        return page

    yield opened
    context.close()
    assert not wrong


@pytest.fixture
def writes_rotation():
    """Skip a test that stores a rotation, where PyAV is too old for that."""
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip(f"PyAV {av.__version__} cannot store the rotation of a video")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with parity fixtures and real data that lies beside the repository."""
    folder = Path(os.environ.get("ETADLITE_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder} (parity fixtures and real data)")
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread():
    """One order of summation: several threads may share the work differently each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def etadlite(monkeypatch, capsys):
    """A function that runs the command in this process: arguments -> exit code, output, errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["etadlite", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", None)  # so that it is set back
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return run


def files_known_to_git() -> list[str]:
    """Return the files of the working tree that git does not ignore, or skip the test."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    return [name for name in listed.stdout.decode().split("\0") if (REPOSITORY / name).is_file()]


@dataclass(frozen=True)
class Tiny:
    """The smallest data set and the assignments that shrink a preset to it.

    Attributes:
        data: folder of three generated videos of 30 s, two to train and one to test.
        features: folder of their features, one view each.
        weights: fresh weights of the tiny encoder.
        assignments: for `e2e_stickfigures`.
        on_features: for `stickfigures`.
    """

    data: Path
    features: Path
    weights: Path
    assignments: tuple[str, ...]
    on_features: tuple[str, ...]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def make_tiny(root: Path) -> Tiny:
    """Write the smallest data set into a folder."""
    make_dataset(root / "data", Size(2, 1, longest=31, pixels=32), workers=1, progress=False)
    torch.manual_seed(1)
    save_weights(root / "encoder.safetensors", tiny_encoder(pretrained=False), {})
    assignments = (
        f"data.annotations={root / 'data' / 'annotations.json'}",
        f"data.videos={root / 'data' / 'videos'}",
        f"data.cache={root / 'frames'}",
        f"encoder.weights={root / 'encoder.safetensors'}",
        "data.decode_size=[26, 26]",
        "data.crop=24",
        *SMALL,
    )
    on_features = (*assignments, f"data.features={root / 'features'}", "data.feature_views=1")
    settings = preset("stickfigures", on_features)
    extract_features(settings, build_encoder(settings.encoder), root / "features", progress=False)
    return Tiny(
        root / "data", root / "features", root / "encoder.safetensors", assignments, on_features
    )


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory) -> Path:
    """The run directory of an end-to-end training of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    run_training(preset("e2e_stickfigures", tiny.assignments), folder, progress=False)
    return folder
