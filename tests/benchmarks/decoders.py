"""Three decoders: which kinds of files each one reads correctly, and how fast.

    python tests/benchmarks/decoders.py [--json FILE] [--seconds 120] [--repeats 3]

Kinds: every kind of `tests/films.py`, whose pictures show their numbers. A decoder reads all frames
and some at random; it gives the same ones, refuses the file, or is wrong. Beside this stands what
decord and torchcodec do by themselves, without the check that refuses files.
Speed: a generated video with a short side of 256 pixels and a key frame every two seconds, decoded
at 128x171 with one thread: 128 snippets of 16 frames as `e2e_anet_tsp` reads them (15 frames a
second), four windows of `e2e_thumos_tsp` and a whole video (30 a second), and 32 single frames.
Processor time, the best of some repeats that take turns; a decoder's result is the tensor that
training gets.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from report import write_report

from etadlite.base.errors import InputError
from etadlite.data.other_decoders import _decord, _torchcodec, load
from etadlite.data.snippets import snippet_frames
from etadlite.data.video import Video
from etadlite.data.windows import windows_of
from etadlite.stickfigures.motion import plan_timeline
from etadlite.stickfigures.scene import TARGET, render

sys.path.insert(0, str(Path(__file__).parent.parent))
from films import KINDS, Film, numbers

DECODERS = "pyav", "decord", "torchcodec"
SIZE = (128, 171)


def judge(read: Callable[[np.ndarray], torch.Tensor], film: Film) -> str:
    """Say whether a function that reads frames by their indices gives those of the film."""
    turn = -1 if film.path.name.startswith("rotated") else 0
    chance, count = np.random.default_rng(0), len(film.numbers)
    tries = [[count - 1], [5, 40], np.sort(chance.integers(0, count, 12)), np.arange(count)]
    try:
        for indices in map(np.array, tries):
            frames = torch.rot90(read(indices), turn, (-2, -1))
            if (numbers(frames) != film.numbers[indices]).any():
                return "wrong"
    except InputError as error:
        return "fails" if "(it fails)" in str(error) else "refused"
    except Exception as error:  # decord's own class of errors is known only with decord
        return f"fails: {type(error).__name__}"
    return "same"


def unchecked(decoder: str, path: Path) -> Callable[[np.ndarray], torch.Tensor]:
    """Return what reads frames with a decoder, without the check that refuses files."""
    opened = {"decord": _decord, "torchcodec": _torchcodec}[decoder]

    def read(indices: np.ndarray) -> torch.Tensor:
        frames, pictures = opened(load(decoder), path, (64, 64))
        if indices.max() >= frames:
            raise InputError(f"{path}: {frames} frames")
        return torch.from_numpy(pictures(indices.tolist())[0]).movedim(-1, 1)

    return read


def compare_kinds(folder: Path) -> dict[str, dict[str, str]]:
    """Judge each decoder on each kind of file, and the two others without their check, too."""
    found = {}
    for name, make in KINDS.items():
        film = make(folder / name)
        row = {}
        for decoder in DECODERS:
            row[decoder] = judge(
                partial(Video(film.path).frames, size=(64, 64), decoder=decoder), film
            )
        for decoder in DECODERS[1:]:
            row[f"{decoder} unchecked"] = judge(unchecked(decoder, film.path), film)
        found[name] = row
    return found


def write_video(path: Path, pictures: Iterator[np.ndarray], rate: int) -> None:
    """Write H.264 as x264 does by default, with a key frame every two seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "23", "g": str(2 * rate)}
        for number, picture in enumerate(pictures):
            if not number:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def measure(folder: Path, seconds: int, repeats: int) -> dict[str, dict[str, float]]:
    """Frames a second of processor time for each way of reading and each decoder."""
    files = {}
    for rate in (15, 30):
        files[rate] = folder / f"{rate}.mp4"
        chance, frames = np.random.default_rng(0), rate * seconds
        motion = plan_timeline(chance, frames, [(30, frames // 2, 0)])
        square = render(chance, motion, TARGET, 256)
        write_video(files[rate], (np.hstack([p, p[:, ::-1]])[:, :456] for p in square), rate)
    windows = windows_of(30 * seconds, size=128, stride=4)[:4]
    inside = [w.first_frame + np.arange(w.snippets)[:, None] * 4 for w in windows]
    ways = {
        "128 snippets of 16": (15, [snippet_frames(15 * seconds, 128, 16, rule="ends")]),
        "windows of THUMOS": (30, [starts + np.arange(16) * 2 for starts in inside]),
        "a whole video": (30, np.array_split(np.arange(30 * seconds), 4)),
        "32 single frames": (30, [np.linspace(0, 30 * seconds - 1, 32).astype(int)]),
    }
    found: dict[str, dict[str, float]] = {}
    for way, (rate, reads) in ways.items():
        wanted = [np.unique(indices.clip(0, rate * seconds - 1)) for indices in reads]
        best = dict.fromkeys(DECODERS, np.inf)
        for _ in range(repeats):
            for decoder in DECODERS:
                started = time.process_time()
                for indices in wanted:
                    Video(files[rate]).frames(indices, SIZE, decoder=decoder)
                best[decoder] = min(best[decoder], time.process_time() - started)
        found[way] = {decoder: sum(map(len, wanted)) / taken for decoder, taken in best.items()}
    return found


def main() -> None:
    """Compare, measure and report."""
    parser = argparse.ArgumentParser(description="Kinds of files and speed of three decoders.")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--seconds", type=int, default=120, help="length of the measured video")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        kinds = compare_kinds(Path(folder))
        for name, row in kinds.items():
            print(f"{name:<20}", *(f"{decoder}: {said:<8}" for decoder, said in row.items()))
        speed = measure(Path(folder), arguments.seconds, arguments.repeats)
    for way, row in speed.items():
        print(f"{way:<20}", *(f"{decoder}: {rate:6.0f}/s" for decoder, rate in row.items()))
    write_report(arguments.json, {"kinds": kinds, "frames_a_second": speed})


if __name__ == "__main__":
    main()
