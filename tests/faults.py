"""A campaign of faults: damaged inputs, killed trainings, small disks and small memories.

    python tests/faults.py [--seed N] [--seconds 600] [--kinds KIND ...] [--count N] [--first N]
        [--known KIND ...]

Every case follows from its kind, the seed and its number alone, so that the command printed with a
lost case repeats it. The damaged file of a lost case stays in runs/faults/. The seed is fresh by
default, and printed.

Inputs (videos, features, tables, settings, checkpoints) are damaged by flipped bytes, cuts,
inserted, swapped and zeroed blocks, and in texts by odd values, and are read with the package's
public readers in a spare process. A case survives if the file is read, or refused as an
`InputError` of one line that names it. It is lost where the reader raises anything else, takes too
long or too much memory, kills its process, or, without a `VideoWarning`, shows another picture
behind a jump than without, or another film than the intact one although FFmpeg marks or reports
damage. Another film of which FFmpeg itself notices nothing is counted apart, as unnoticed. A lost
case is tried once more in a new process: one that survives then does not follow from its file
alone, is printed and is counted apart, as lost once.

Kills end a training of one or two processes at random moments and resume it until it is done: it
must give the bits of an undisturbed one, or weights within 1e-6 if the number of processes changed.
Bursts kill a training 20 times that moves between one and two processes, always before it can end.
Disks and memories give a training too little of either: the command must say so in one sentence,
and a run on a disk that has room again must end with the same bits.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from itertools import count, takewhile
from pathlib import Path
from typing import NamedTuple

import av
import films
import h5py
import numpy as np
import torch
import torch.distributed as dist
from av.error import FFmpegError
from conftest import REPOSITORY, SMALL, Tiny, make_tiny
from safetensors.torch import save

from etadlite.base.errors import InputError
from etadlite.base.restarts import meet
from etadlite.base.weights import load_weights
from etadlite.cli import main as etadlite
from etadlite.data.annotations import read_annotations
from etadlite.data.features import read_features
from etadlite.data.packets import ANY_TAGS
from etadlite.data.video import Video, VideoWarning
from etadlite.evaluation.arrays import read_ground_truth, read_predictions
from etadlite.model.checkpoint import checkpoint_settings, load_checkpoint, save_checkpoint
from etadlite.model.system import System
from etadlite.prepare.convert import read_published
from etadlite.prepare.importers import read_rows
from etadlite.prepare.isolated import in_processes
from etadlite.presets import preset
from etadlite.runs.run import run_training

KEPT = REPOSITORY / "runs" / "faults"
CHANNELS = 8
MEMORY = 3 * 2**30  # bytes of addresses that a reader may take beyond what its process has
BURST = 20  # kills in a row
SECONDS = 60.0  # time limit of a case, on a busy machine
VIDEOS = (
    *("h264.mp4", "h264.mkv", "h264.avi", "h264.ts", "h264.flv", "fragmented.mp4", "varying.mkv"),
    *("open_gop.mp4", "intra_refresh.ts", "late.mkv", "edit_list.mp4", "joined.ts", "cover.mp4"),
    *("hevc.mp4", "hevc_open_gop.mp4", "vp8_hidden.webm", "vp9.mp4", "av1.webm", "mpeg4.avi"),
    *("mpeg4.mp4", "mpeg2.mpg", "mpeg2.ts", "mjpeg.avi", "wmv2.wmv", "h263.3gp", "gaps.avi"),
)


class Case(NamedTuple):
    """A damaged input."""

    kind: str
    number: int
    path: Path
    intact: Path  # what it was made from
    seed: str


class Verdict(NamedTuple):
    """What became of a case; `lost` says in words what went wrong, and is empty otherwise."""

    case: Case
    lost: str
    how: str = ""  # read, warned, refused, unnoticed or lost once


# Damage


def flipped(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def flipped_at_an_end(content: bytearray, draw: random.Random) -> None:
    """Flip bytes where formats keep their headers and indices."""
    reach = min(len(content), draw.choice((64, 512, 4096)))
    for _ in range(draw.choice((1, 2, 8))):
        content[draw.choice((draw.randrange(reach), -1 - draw.randrange(reach)))] = draw.choice(
            (0, 1, 127, 128, 255, draw.randrange(256))
        )


def block(content: bytearray, draw: random.Random) -> slice:
    start = draw.randrange(len(content))
    return slice(start, start + draw.choice((1, 4, 16, 200, 2000)))


def cut_off(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def cut_out(content: bytearray, draw: random.Random) -> None:
    del content[block(content, draw)]


def inserted(content: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(content))
    some = draw.choice((draw.randbytes(draw.choice((1, 8, 300))), content[block(content, draw)]))
    content[place:place] = some


def swapped(content: bytearray, draw: random.Random) -> None:
    one, other = sorted((block(content, draw), block(content, draw)), key=lambda cut: cut.start)
    if one.stop <= other.start:
        content[one], content[other] = content[other], content[one]


def zeroed(content: bytearray, draw: random.Random) -> None:
    header = slice(0, draw.choice((1, 8, 64, 300)))
    place = draw.choice((header, block(content, draw)))
    content[place] = bytes(len(content[place]))


ODD = (
    *("null", "true", "-1", "0", "1e999", "NaN", "1" + "0" * 30, "1" * 5000, "1e300", "0x10", "--"),
    *("[]", "{}", "[[1]]", '""', '"../../x"', '"\\ud800"', '"\\u0000"', "\x1b[2J", "=1+1", "&x;"),
    *("\r", "\n", '"', ",", ":", "[" * 3000, "\ufeff", "99:99:99", "<a/>", "é".encode("latin1")),
)


def odd_value(content: bytearray, draw: random.Random) -> None:
    """Put an odd value in the place of a word, a number or a sign of a text."""
    tokens = list(re.finditer(rb'"[^"]*"|-?\d[\d.]*|\w+|[\[\]{}<>,;:=]', content))
    if tokens:
        start, stop = draw.choice(tokens).span()
        odd = draw.choice(ODD)
        content[start:stop] = odd if isinstance(odd, bytes) else odd.encode()


ANY = (flipped, flipped_at_an_end, cut_off, cut_out, inserted, swapped, zeroed)


def damaged(content: bytes, draw: random.Random, text: bool) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if changed:
            draw.choice((*ANY, *[odd_value] * 14) if text else ANY)(changed, draw)
    return bytes(changed)


# Intact inputs


def write_video(path: Path) -> None:
    film = films.KINDS[path.name](path)
    np.savez(path.with_suffix(path.suffix + ".npz"), numbers=film.numbers, times=film.times)


def write_feature(path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(12, CHANNELS)).astype("float32")
    if path.suffix == ".npy":
        kinds = {"big": rows.astype(">f8"), "columns": np.asfortranarray(rows)}
        np.save(path, kinds.get(path.stem, rows))
    elif path.suffix == ".npz":
        save_archive = np.savez_compressed if path.stem == "packed" else np.savez
        save_archive(path, feats=rows, times=np.arange(12))
    else:
        with h5py.File(path, "w") as file:
            how = {"chunks": (4, CHANNELS), "compression": "gzip"} if path.stem == "packed" else {}
            file.create_dataset("group/features", data=rows, **how)


DATABASE = {
    "database": {
        f"v_{k}": {
            "subset": "training",
            "duration": 30.5,
            "frame": 900,
            "annotations": [
                {"segment": [1.5, 4], "label": "kick"},
                {"segment": [6, 9.25], "label": "throw"},
            ],
        }
        for k in range(3)
    }
}
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"video": "/data/upload/1/run.mp4"},
        "annotations": [
            {
                "result": [
                    {
                        "from_name": "actions",
                        "to_name": "video",
                        "type": "timelinelabels",
                        "value": {
                            "ranges": [{"start": 10, "end": 40}],
                            "timelinelabels": ["kick"],
                        },
                    }
                ]
            }
        ],
    }
]
VIA = {
    "project": {"pid": "x"},
    "config": {},
    "attribute": {"1": {"aname": "action", "type": 4, "options": {"0": "kick", "1": "throw"}}},
    "file": {"1": {"fid": "1", "fname": "run.mp4", "type": 4, "loc": 1, "src": "run.mp4"}},
    "view": {"1": {"fid_list": ["1"]}},
    "metadata": {"1_a": {"vid": "1", "z": [1.5, 4], "xy": [], "av": {"1": "0"}}},
}
TABLE = "Video,Start,End,Label\nrun.mp4,1.5,4,kick\nrun.mp4,0:06,0:09.25,throw\n"
EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT><HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
<MEDIA_DESCRIPTOR MEDIA_URL="file:///x/run.mp4" MIME_TYPE="video/mp4"/></HEADER>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1500"/><TIME_SLOT TIME_SLOT_ID="ts2"/>
<TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="4000"/></TIME_ORDER>
<TIER LINGUISTIC_TYPE_REF="t" TIER_ID="actions"><ANNOTATION><ALIGNABLE_ANNOTATION
ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2"><ANNOTATION_VALUE>kick
</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION><ANNOTATION><ALIGNABLE_ANNOTATION
ANNOTATION_ID="a2" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3"><ANNOTATION_VALUE>throw
</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="t" TIME_ALIGNABLE="true"/></ANNOTATION_DOCUMENT>
"""
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id>1</id><name>run.mp4</name><size>300</size>
<source>run.mp4</source></task></meta><track id="0" label="kick"><box frame="10" outside="0"
occluded="0" keyframe="1" xtl="1" ytl="1" xbr="9" ybr="9"/><box frame="40" outside="1" occluded="0"
keyframe="1" xtl="1" ytl="1" xbr="9" ybr="9"/></track></annotations>
"""
FOUND = {
    "results": {"v_0": [{"segment": [1.5, 4.0], "score": 0.75, "label": "kick"}]},
    "version": "1",
}
TEXTS = {
    "activitynet.json": json.dumps(DATABASE),
    "annotations.json": json.dumps(DATABASE, indent=1),
    "predictions.json": json.dumps(FOUND),
    "list.json": json.dumps([{"video": "run", "start": 1.5, "end": "0:04", "label": "kick"}] * 2),
    "studio.json": json.dumps(LABEL_STUDIO),
    "via.json": json.dumps(VIA),
    "table.csv": TABLE,
    "utf16.csv": TABLE,
    "frames.tsv": "file\tstart_frame\tend_frame\tclass\nrun.mp4\t10\t40\tkick\n",
    "elan.eaf": EAF,
    "cvat.xml": CVAT,
}


def write_table(path: Path) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("elan.eaf", EAF)
            packed.writestr("table.csv", TABLE)
    else:
        path.write_text(TEXTS[path.name], "utf-16" if path.stem == "utf16" else "utf-8")


def small_settings():
    return preset("stickfigures", [*SMALL, "data.features=features", "detector.in_channels=8"])


def write_settings(path: Path) -> None:
    path.write_text(small_settings().model_dump_json(indent=1))


def write_weights(path: Path) -> None:
    torch.manual_seed(0)
    if path.name == "checkpoint.safetensors":
        save_checkpoint(path, System(small_settings()), small_settings())
    elif path.suffix == ".safetensors":
        path.write_bytes(save({"a": torch.ones(4, 5), "b": torch.ones(2)}, {"note": "x"}))
    else:
        torch.save({"state_dict": {"a": torch.ones(4, 5), "b": torch.ones(2)}, "epoch": 3}, path)


# Readers


def read_as_table(path: Path, intact: Path) -> str:
    if intact.name == "annotations.json":
        read_annotations(path)
    elif intact.name == "predictions.json":
        read_predictions(path, read_ground_truth(DATABASE, "training"))
    else:
        read_rows(path)
    return "read"


def read_as_feature(path: Path, intact: Path) -> str:
    features = read_features(path, CHANNELS)
    assert features.dtype == torch.float32
    assert features.shape[0] == CHANNELS
    assert torch.isfinite(features).all()
    return "read"


def read_as_settings(path: Path, intact: Path) -> str:
    preset(str(path))
    return "read"


def read_as_checkpoint(path: Path, intact: Path) -> str:
    if intact.name == "checkpoint.safetensors":
        load_checkpoint(path, checkpoint_settings(path))
    elif intact.suffix == ".safetensors":
        load_weights(path)
    else:
        read_published(path)
    return "read"


def read_as_video(path: Path, intact: Path) -> str:
    """Read all frames, and a few by jumps; compare what is shown with the intact film."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        video = Video(path)
        every = films.numbers(video.frames(np.arange(video.info.frames), (64, 64)))
        draw = np.random.default_rng(path.stat().st_size)
        indices = np.unique(draw.integers(0, video.info.frames, 8))
        jumped = films.numbers(video.frames(indices, (64, 64)))
    if any(issubclass(warning.category, VideoWarning) for warning in said):
        return "warned"
    film = np.load(intact.with_suffix(intact.suffix + ".npz"))
    due = film["numbers"][np.abs(video.times[indices, None] - film["times"]).argmin(1)]
    wrong = (jumped != due) & (every[indices] == due)
    if wrong.any():
        index = indices[wrong.argmax()]
        raise AssertionError(f"silent: frame {index} is another one behind a jump than without")
    moments = film["times"] + 1 / 90  # within the time of each picture
    whole = len(every) == len(film["numbers"])
    if whole and np.array_equal(every[video.shown_at(moments)], film["numbers"]):
        return "read"
    if reported := errors_reported(path, video, joined="joined" in intact.name):
        raise AssertionError(f"silent: the film is another one, and FFmpeg reports {reported}")
    return "unnoticed"


def errors_reported(path: Path, video: Video, *, joined: bool) -> str:
    """Decode a file from its start to its end; return an error that FFmpeg reports, or "".

    Where recordings are `joined`, the container marks a packet that is intact.
    """
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as reports, av.open(str(path), **ANY_TAGS) as file:
            stream = file.streams[video.timeline.stream]
            stream.codec_context.thread_count = 1
            packets = file.demux(stream)
            while packet := next(packets, None):
                if packet.is_corrupt and not joined:
                    return "a packet that its container marks"
                if any(frame.is_corrupt for frame in stream.codec_context.decode(packet)):
                    return "a frame that the decoder marks"
            return next((what for _, _, what in reports if not what.startswith("mmco: ")), "")
    except FFmpegError as error:
        return str(error)
    finally:
        av.logging.set_level(None)


class Kind(NamedTuple):
    """Inputs of a kind: the files, their writer, their reader, and whether they are texts."""

    names: tuple[str, ...]
    write: Callable[[Path], None]
    read: Callable[[Path, Path], str]
    text: bool = False


FEATURES = ("plain.npy", "big.npy", "columns.npy", "plain.npz", "packed.npz", "plain.h5")
INPUTS = {
    "videos": Kind(VIDEOS, write_video, read_as_video),
    "features": Kind((*FEATURES, "packed.hdf5"), write_feature, read_as_feature),
    "tables": Kind((*TEXTS, "packed.zip"), write_table, read_as_table, text=True),
    "settings": Kind(("settings.json",), write_settings, read_as_settings, text=True),
    "checkpoints": Kind(
        ("checkpoint.safetensors", "weights.safetensors", "published.pth"),
        write_weights,
        read_as_checkpoint,
    ),
}


def cases(kind: str, seed: str, numbers: Iterator[int], folder: Path) -> Iterator[Case]:
    """Write the damaged files of a kind; what the writers skip on this machine is left out."""
    inputs, intact, made = INPUTS[kind], folder / "intact", folder / "damaged"
    for each in (intact, made):
        each.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        draw = random.Random(f"{kind} {seed} {number}")
        source = intact / draw.choice(inputs.names)
        if not source.exists():
            inputs.write(source)
        path = made / f"{kind}-{seed}-{number}{source.suffix}"
        is_text = inputs.text and source.suffix != ".zip"
        path.write_bytes(damaged(source.read_bytes(), draw, is_text))
        yield Case(kind, number, path, source, seed)


limited = False


def examine(case: Case) -> tuple[str, str]:
    """Return why a case is lost, or "", and how it survived; runs in a spare process."""
    global limited  # noqa: PLW0603
    if not limited:
        av.logging.set_level(None)
        torch.set_num_threads(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        limit_memory(MEMORY)
        limited = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "", INPUTS[case.kind].read(case.path, case.intact)
    except InputError as error:
        sentence = str(error)
        if case.path.name not in sentence or len(sentence.splitlines()) != 1:
            return f"it does not name the file in one line: {sentence[:500]!r}", "refused"
        return "", "refused"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}", ""


def limit_memory(more: int) -> None:
    """Limit the addresses of this process to what it has and some bytes more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def damage_inputs(kind: str, seed: str, numbers: Iterator[int], folder: Path) -> Iterator[Verdict]:
    """Examine the cases of a kind one after the other; keep the files of lost ones."""
    made = cases(kind, seed, numbers, folder / kind)
    for first in verdicts(made):
        case, verdict = first.case, first
        if first.lost:
            KEPT.mkdir(parents=True, exist_ok=True)
            shutil.copy(case.path, KEPT)
            (verdict,) = verdicts([case])
            if not verdict.lost:
                print(f"LOST ONCE {kind} {case.number} ({case.intact.name}): {first.lost}")
                verdict = Verdict(case, "", "lost once")
        case.path.unlink()
        yield verdict


def verdicts(made: Iterable[Case]) -> Iterator[Verdict]:
    """Examine cases in one spare process, which is replaced where it dies or hangs."""
    for case, result, error in in_processes(examine, made, workers=1, seconds=SECONDS):
        yield Verdict(case, error) if error else Verdict(case, *result)


# Kills, disks and memories


# A training that moves between one and two processes rounds anew with each move, which full steps
# magnify to 3e-6. Steps of this size keep that below 1e-7, and one step too many or too few
# shows more than 1e-6.
SMALL_STEPS = (
    *("training.detector_lr=2e-6", "training.schedule=step", "training.step_epoch=60"),
    "training.warmup_epochs=0",
)
BURSTS = ("training.epochs=60", "training.test_every=60")


class Trainings:
    """Short trainings on features: kept small, undisturbed ones of one and of two processes."""

    def __init__(self, folder: Path, *more: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.numbers = folder, count()
        self.tiny: Tiny = make_tiny(folder / "tiny")
        self.changes = (
            *("training.epochs=4", "training.test_every=2", "training.batch_size=2"),
            *("training.checkpoint_minutes=0", "detector.max_duration=4"),
            *SMALL_STEPS,
            *more,
        )
        self.seconds, self.whole = {}, {}
        for processes in (1, 2, 1, 2):  # the first times hold the start of the server
            run, start = self.fresh(), time.monotonic()
            if error := self.leg(run, processes, None)[1]:
                raise RuntimeError(f"an undisturbed training failed: {error}")
            self.seconds[processes] = time.monotonic() - start
            self.whole[processes] = self.weights(run)

    def fresh(self) -> Path:
        run = self.folder / f"run{next(self.numbers)}"
        run.mkdir()
        return run

    @staticmethod
    def weights(run: Path) -> dict[str, torch.Tensor]:
        # Read weights are a view of their file, which would keep a small disk in use.
        read = load_weights(run / "checkpoint.safetensors")[0]
        return {name: weight.clone() for name, weight in read.items()}

    def leg(
        self, run: Path, processes: int, after: float | None, victim: int = 0, steps: int = 10**9
    ):
        """Go on with a run, and kill a process after some seconds, or after some steps.

        Returns if it was killed, and what went wrong in words.
        """
        meeting = self.folder / f"meeting{next(self.numbers)}"
        start = multiprocessing.get_context("forkserver").Process
        settings = preset("stickfigures", [*self.tiny.on_features, *self.changes])
        workers = [
            start(target=goes_on, args=(settings, run, rank, processes, meeting))
            for rank in range(processes)
        ]
        for worker in workers:
            worker.start()
        killed, end = False, steps + steps_of(run)
        if after is not None:
            late = time.monotonic() + after
            while time.monotonic() < late and workers[victim].is_alive() and steps_of(run) < end:
                workers[victim].join(0.005)
            if killed := workers[victim].is_alive():
                os.kill(workers[victim].pid, signal.SIGKILL)
                for worker in workers:  # torchrun ends those that wait for a lost one
                    worker.join(5)
                    worker.kill()
        for worker in workers:
            worker.join(10 * SECONDS)
        hung = [worker for worker in workers if worker.is_alive()]
        for worker in hung:
            worker.kill()
            worker.join()
        codes = [worker.exitcode for worker in workers]
        if hung:
            return killed, "a process goes on without end"
        for rank, code in enumerate(codes):
            said = Path(f"{meeting}.{rank}").read_text() if code != -signal.SIGKILL else ""
            allowed = killed and "StoppedError" in said
            if code and code != -signal.SIGKILL and not allowed:
                return killed, f"process {rank} ended with {code}: {said[-400:]}"
        return killed and any(codes), ""


def steps_of(run: Path) -> int:
    """Return how many records a run has written."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def goes_on(settings, run: Path, rank: int, processes: int, meeting: Path) -> None:
    sys.stderr = Path(f"{meeting}.{rank}").open("w", buffering=1)  # noqa: SIM115
    torch.set_num_threads(1)
    if processes > 1:
        store = dist.FileStore(str(meeting), processes)
        meet("gloo", store, rank, processes, timedelta(seconds=10 * SECONDS))
    run_training(settings, run, resume=True, progress=False)


def kill(
    trainings: Trainings, draw: random.Random, how: str, most: int | None = None
) -> tuple[int, str]:
    """Kill and resume a training until it is done; return the kills, and what is wrong.

    It may end before eight kills. A burst kills it `most` times, each time after a few steps at
    most, and it moves each time.
    """
    run, kills, counts = trainings.fresh(), 0, set()
    for leg in count():
        processes = {"one": 1, "two": 2}.get(how) or draw.choice((1, 2))
        after = draw.uniform(0, trainings.seconds[processes]) if leg < 8 else None
        steps = 10**9
        if most is not None:
            processes, steps = 1 + leg % 2, draw.choice((0, 1, 1, 2))
            after = None if kills == most else SECONDS if steps else draw.uniform(0, 2)
            steps = steps or 2  # a leg that a time ends may not end the training either
        killed, wrong = trainings.leg(run, processes, after, draw.randrange(processes), steps)
        counts.add(processes)
        kills += killed
        if wrong:
            return kills, wrong
        if not killed and (most is None or kills == most):
            break
        if not killed:
            return kills, f"it ended after {kills} of {most} kills"
    ours, whole = trainings.weights(run), trainings.whole[min(counts)]
    apart = max(float((ours[name].double() - whole[name].double()).abs().max()) for name in whole)
    shutil.rmtree(run)
    limit = 0 if len(counts) == 1 else 1e-6
    return kills, f"the weights differ by {apart:.1e}, {how}" if apart > limit else ""


def command(arguments: list[str], said: Path, disk: int | None, memory: int | None) -> None:
    """Run the command with a limit of the size of files, or of the memory."""
    torch.set_num_threads(1)
    if disk is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    if memory is not None:
        limit_memory(memory)
    sys.argv = ["etadlite", *arguments]
    etadlite()


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a file system of some bytes; give False where that is not allowed."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def constrain(trainings: Trainings, draw: random.Random, what: str) -> str:
    """Train with too little disk or memory, then go on with enough; return what is wrong."""
    root, said = trainings.fresh(), trainings.folder / "said"
    arguments = ["train", "stickfigures", *trainings.tiny.on_features, *trainings.changes]
    arguments += ["--quiet", "--out", str(root)]
    size = draw.randrange(8_000, 2_000_000) if what == "disks" else draw.randrange(10**6, 4 * 10**8)

    def runs(more: list[str], disk: int | None = None, memory: int | None = None) -> str:
        start = multiprocessing.get_context("forkserver").Process
        process = start(target=command, args=([*arguments, *more], said, disk, memory))
        process.start()
        process.join(10 * SECONDS)
        text = said.read_text(errors="replace") if said.exists() else ""
        if process.is_alive():
            process.kill()
            return "it goes on without end"
        if process.exitcode and (process.exitcode < 0 or "Traceback" in text or not text):
            return f"exit code {process.exitcode}: {text[-600:]}"
        return ""

    with small_disk(root, size) if what == "disks" else nullcontext() as mounted:
        wrong = runs(
            [],
            disk=size if what == "disks" and not mounted else None,
            memory=size if what == "memories" else None,
        )
        if wrong:
            return f"with {size:,} bytes: {wrong}"
        run = root / "stickfigures" / "001"
        if not (run / "config.json").exists():
            return ""
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=1g", str(root)], check=True)
        if wrong := runs(["--resume", str(run)]):
            return f"resumed after {size:,} bytes: {wrong}"
        ours, whole = trainings.weights(run), trainings.whole[1]
        same = all(torch.equal(ours[name], whole[name]) for name in whole)
    return "" if same else f"other bits after {size:,} bytes"


def disturb(kind: str, seed: str, numbers: Iterator[int], folder: Path) -> Iterator[Verdict]:
    """Disturb trainings one after the other."""
    trainings = Trainings(folder / kind, *(BURSTS if kind == "bursts" else ()))
    for number in numbers:
        draw, how = random.Random(f"{kind} {seed} {number}"), ""
        if kind == "bursts":
            kills, wrong = kill(trainings, draw, "burst", BURST)
            how = f"killed {kills} times"
        elif kind == "kills":
            kills, wrong = kill(trainings, draw, ("one", "two", "moving")[number % 3])
            how = f"killed {kills} times"
        else:
            wrong = constrain(trainings, draw, kind)
        yield Verdict(Case(kind, number, folder, folder, seed), wrong, how)


# The campaign

KINDS = (*INPUTS, "kills", "bursts", "disks", "memories")


def campaign(
    kind: str, seed: str, folder: Path, *, seconds: float, first: int = 0, most: int = 10**9
) -> list[Verdict]:
    """Try cases of a kind until the time is over, and print what became of them."""
    end = time.monotonic() + seconds
    all_of = range(first, first + most)
    numbers = takewhile(lambda n: n == first or time.monotonic() < end, all_of)
    found = []
    for verdict in (damage_inputs if kind in INPUTS else disturb)(kind, seed, numbers, folder):
        found.append(verdict)
        if verdict.lost:
            print(in_words(verdict), flush=True)
    lost = sum(bool(verdict.lost) for verdict in found)
    ways = Counter(verdict.how for verdict in found if not verdict.lost and verdict.how)
    words = ", ".join(f"{number:,} {how}" for how, number in sorted(ways.items()))
    print(f"{kind:<12}{len(found):>7,}{len(found) - lost:>10,}{lost:>6,}  {words}", flush=True)
    return found


def in_words(verdict: Verdict) -> str:
    """Say what was lost, and the command that repeats it."""
    kind, number, _, intact, seed = verdict.case
    return (
        f"LOST {kind} {number} ({intact.name}): {verdict.lost}\n"
        f"  python tests/faults.py --kinds {kind} --seed {seed} --first {number} --count 1"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Damage what etadlite reads, and disturb it.")
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument(
        "--known", nargs="+", choices=KINDS, default=[], help="kinds whose losses are no failure"
    )
    parser.add_argument("--count", type=int, default=10**9, help="cases per kind at most")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args()
    print(f"seed {options.seed}\n{'':<12}{'tried':>7}{'survived':>10}{'lost':>6}", flush=True)
    lost, end = [], time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as folder:
        for left, kind in zip(range(len(options.kinds), 0, -1), options.kinds, strict=True):
            seconds = (end - time.monotonic()) / left
            found = campaign(
                kind,
                options.seed,
                Path(folder),
                seconds=seconds,
                first=options.first,
                most=options.count,
            )
            lost += [verdict for verdict in found if verdict.lost and kind not in options.known]
    if lost:  # once more, where a long log ends
        print("", *map(in_words, lost), sep="\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
