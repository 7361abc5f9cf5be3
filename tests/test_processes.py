"""Several processes train and test like a single one."""

import os
import random
import shlex
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from etadlite.base import distributed
from etadlite.base.draws import video_seed
from etadlite.base.errors import InputError, StoppedError
from etadlite.base.restarts import meet, part_of_this_start, remember_run, remembered_run
from etadlite.base.weights import load_weights
from etadlite.cli import main
from etadlite.data.datasets import SampleKey, collate
from etadlite.data.loading import TrainingOrder
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.runs import testing
from etadlite.runs.run import run_training
from etadlite.training import loop
from etadlite.training.interruption import Interruption
from etadlite.training.loop import make_optimizer, open_split
from etadlite.training.recorder import read_metrics
from etadlite.training.step import StepOutOfMemoryError, train_step

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="forks processes from a server"
)


def in_processes(count, folder, function, *arguments):
    """Return what a function returns in each of several processes."""
    mp.start_processes(
        _one_of_them, (count, folder, function, arguments), nprocs=count, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _one_of_them(rank, count, folder, function, arguments):
    torch.set_num_threads(1)
    store = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", store, rank=rank, world_size=count)
    torch.save(function(*arguments), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The order


@pytest.mark.parametrize(("samples", "batch"), [(7, 3), (8, 4), (2, 5)])
def test_every_epoch_has_each_sample_once_in_its_own_order(samples, batch):
    order = TrainingOrder(samples, batch, seed=3)
    epochs = []
    for order.epoch in range(3):
        steps = list(order)
        assert len(steps) == len(order)
        epochs.append([key.index for step in steps for key in step])
        assert sorted(epochs[-1]) == list(range(samples))
        assert all(key.seed == video_seed(3, order.epoch, key.index) for s in steps for key in s)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_an_epoch_can_be_entered_anywhere():
    order = TrainingOrder(9, 2, seed=0)
    order.epoch = 4
    whole = list(order)
    order.first_step = 3
    assert list(order) == whole[3:]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_shares_of_the_processes_are_the_joined_batch(monkeypatch, count):
    order = TrainingOrder(10, 4, seed=0)
    whole, shares = list(order), []
    monkeypatch.setattr(distributed, "world_size", lambda: count)
    for rank in range(count):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(list(order))
    for step, joined in enumerate(whole):
        assert [key for share in shares for key in share[step]] == joined
        sizes = [len(share[step]) for share in shares]
        assert max(sizes) - min(sizes) <= 1


# A step


def settings_of(tiny, *changes):
    small = ("detector.max_duration=8", "training.clip_norm=0.5", "data.jitter=0")
    return preset("e2e_stickfigures", [*tiny.assignments, *small, *changes])


def one_step(settings, indices):
    """Return record, gradients and weights of a step on this process's share of some samples."""
    torch.manual_seed(0)
    system = System(settings)
    data = open_split(settings, training=True)
    samples = [data[SampleKey(index, 10 * index)] for index in indices]
    optimizer = make_optimizer(system, settings.training)
    record = train_step(system, collate(distributed.shard(samples)), optimizer, settings)
    gradients = {n: p.grad for n, p in system.named_parameters() if p.grad is not None}
    return record, gradients, system.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["random", "boundary"])
@pytest.mark.parametrize(("count", "indices"), [(2, [0, 1, 0]), (2, [1])])
def test_a_step_of_two_processes_is_one_on_the_joined_batch(
    tiny, tmp_path, count, indices, strategy
):
    settings = settings_of(tiny, f"sampling.snippet_strategy={strategy}")
    record, gradients, weights = one_step(settings, indices)
    assert any(name.startswith("encoder") for name in gradients)
    found = in_processes(count, tmp_path, one_step, settings, indices)
    for theirs, other, _after in found:
        assert theirs == pytest.approx(record, rel=1e-4)
        assert other.keys() == gradients.keys()
        for name, gradient in gradients.items():
            scale = float(gradient.abs().max())
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-5 * scale)
    for name in weights:  # all have the very same weights
        assert torch.equal(found[0][2][name], found[1][2][name])


def odd_one_fails(settings, indices):
    """Do steps in which memory runs out, or NaN occurs, in the second process only."""
    torch.manual_seed(0)
    system = System(settings)
    data = open_split(settings, training=True)
    batch = collate(distributed.shard([data[SampleKey(index, 0)] for index in indices]))
    optimizer = make_optimizer(system, settings.training)
    encode = system.encoder.encoder.forward
    before = {name: value.clone() for name, value in system.state_dict().items()}

    def fails(frames):
        if torch.is_grad_enabled() and distributed.rank() == 1:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        return encode(frames)

    system.encoder.encoder.forward = fails
    try:
        train_step(system, batch, optimizer, settings)
    except StepOutOfMemoryError as error:
        said = str(error)
    system.encoder.encoder.forward = encode
    train_step(system, batch, optimizer, settings)  # they still agree on what comes next
    system.load_state_dict(before)
    if distributed.rank() == 1:
        system.detector.register_forward_pre_hook(lambda module, args: (args[0] / 0, args[1]))
    record = train_step(system, batch, optimizer, settings)
    same = all(torch.equal(system.state_dict()[name], before[name]) for name in before)
    return said, record["gradient_norm"], same


@pytest.mark.slow
def test_an_error_in_one_process_ends_the_step_in_all(tiny, tmp_path):
    found = in_processes(2, tmp_path, odd_one_fails, settings_of(tiny), [0, 1])
    for said, norm, same in found:
        assert "not enough memory" in said
        assert norm != norm  # noqa: PLR0124
        assert same


def refused(tiny_data):
    reasons = []
    for kind in ("good", "bad"):
        try:
            with distributed.raise_together():
                if kind == "bad" and distributed.rank() == 1:
                    raise InputError("the folder is not on this machine")
        except InputError as error:
            reasons.append(str(error))
    total = distributed.all_reduce_sum(torch.tensor(distributed.rank() + 1.0))
    return (
        reasons,
        float(total),
        distributed.broadcast(distributed.rank()),
        distributed.gather("x"),
    )


@pytest.mark.slow
def test_one_process_that_refuses_speaks_for_all(tmp_path):
    first, second = in_processes(2, tmp_path, refused, None)
    assert first == (["the folder is not on this machine"], 3.0, 0, ["x", "x"])
    assert second == (["the folder is not on this machine"], 3.0, 0, [])


# A test


def predictions_of(settings):
    torch.manual_seed(0)
    system = System(settings)
    found = testing.test_system(
        system, settings, open_split(settings, training=False), progress=False
    )
    return found and found[0]["results"]


@pytest.mark.slow
def test_a_test_by_three_processes_finds_the_same(tiny, tmp_path):
    annotations = tmp_path / "swapped.json"
    text = (tiny.data / "annotations.json").read_text()
    swapped = text.replace('"training"', '"x"').replace('"validation"', '"training"')
    annotations.write_text(swapped.replace('"x"', '"validation"'))
    settings = settings_of(tiny, f"data.annotations={annotations}", "training.batch_size=1")
    alone = predictions_of(settings)
    assert len(alone) == 2
    # Two videos: one of the three has none.
    together, *nothing = in_processes(3, tmp_path, predictions_of, settings)
    assert nothing == [None, None]
    assert together.keys() == alone.keys()
    for name, found in alone.items():
        assert [d["label"] for d in together[name]] == [d["label"] for d in found]
        assert [d["score"] for d in together[name]] == pytest.approx([d["score"] for d in found])


# The command


def elastic(**own):
    """How torchrun starts processes on at least one machine, and looks after them."""
    return LaunchConfig(min_nodes=1, rdzv_backend="c10d", monitor_interval=0.1, **own)


def command_in_two(arguments, folder, *, dies=(), restarts=0):
    """Run the command in two processes, like torchrun; return the failure and all outputs.

    `dies` has a triple for each of the first starts: which process is killed, after how many steps,
    and how many seconds after that.
    """
    own = {"max_nodes": 1, "nproc_per_node": 2, "max_restarts": restarts}
    config = elastic(rdzv_endpoint="localhost:0", start_method="forkserver", **own)
    failure = None
    try:
        elastic_launch(config, one_command)(list(map(str, arguments)), folder, dies)
    except ChildFailedError as error:
        failure = error
    said = [(folder / f"{rank}.{name}").read_text() for rank in (0, 1) for name in ("err", "out")]
    return failure, *said


def one_command(arguments, folder, dies):
    rank, start = os.environ["RANK"], int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    (folder / f"started.{start}").touch()
    sys.argv = ["etadlite", *arguments]
    sys.stderr = (folder / f"{rank}.err").open("w")
    sys.stdout = (folder / f"{rank}.out").open("w")
    torch.set_num_threads(1)
    step = loop.step_in_memory

    def lethal(training, batch):
        number, steps, seconds = dies[start] if start < len(dies) else (None, 0, 0)
        if (int(rank), training.progress.steps) == (number, steps):
            die = partial(os.kill, os.getpid(), signal.SIGKILL)
            threading.Timer(seconds, die).start() if seconds else die()
        return step(training, batch)

    loop.step_in_memory = lethal
    try:
        main()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()


@pytest.mark.slow
def test_a_lost_process_ends_the_run_and_resume_finishes_it(tiny, tmp_path):
    changes = ("training.epochs=6", "training.batch_size=2", "training.checkpoint_minutes=10")
    arguments = ("train", "stickfigures", *tiny.on_features, *changes, "--quiet", "--out", tmp_path)
    folder = tmp_path / "stickfigures" / "001"
    failure, err, *_ = command_in_two(arguments, tmp_path, dies=[(1, 3, 0)])
    assert failure is not None
    assert "error: another process of this training was lost; " in err
    words = err.splitlines()[-1].removeprefix("continue with: torchrun --nproc_per_node=2 ")
    assert words.startswith("-m etadlite train stickfigures")
    assert words.endswith(f"--resume {folder}")
    assert [r["step"] for r in read_metrics(folder)] == [1, 2, 3]

    failure, err, out, *second = command_in_two(shlex.split(words)[2:], tmp_path)
    assert failure is None
    assert (err, second) == ("", ["", ""])  # the first process speaks for all
    assert out.splitlines()[-1] == f"run: {folder}"
    assert [r["step"] for r in read_metrics(folder) if "loss" in r] == [1, 2, 3, 4, 5, 6]
    assert (folder / "report.json").exists()


@pytest.mark.slow
def test_restarts_of_torchrun_go_on_with_the_run_that_it_began(tmp_path, tiny):
    changes = ("training.epochs=9", "training.batch_size=2", "training.checkpoint_minutes=0")
    arguments = ("train", "stickfigures", *tiny.on_features, *changes, "--quiet", "--out", tmp_path)
    assert command_in_two(arguments, tmp_path)[0] is None
    later = [round(random.uniform(0, 0.1), 4) for _ in range(2)]
    dies = [(0, 2, later[0]), (1, 4, later[1]), (0, 6, 0)]
    print(dies)
    failure, err, *_ = command_in_two(arguments, tmp_path, dies=dies, restarts=3)
    assert failure is None, err
    assert (tmp_path / "started.1").exists()  # again
    runs = [tmp_path / "stickfigures" / name for name in ("001", "002")]  # not an older run
    assert sorted((tmp_path / "stickfigures").iterdir()) == runs
    whole, killed = ([r for r in read_metrics(f) if "loss" in r] for f in runs)
    assert [r["loss"] for r in killed] == [r["loss"] for r in whole]
    weights, others = (load_weights(f / "checkpoint.safetensors")[0] for f in runs)
    assert all(torch.equal(weights[name], others[name]) for name in weights)


# Machines that join and leave


def machine(name, port, arguments, folder):
    """One machine of `torchrun --nnodes=1:2`, with one process, in a process group of its own."""
    os.setsid()
    # Else torchrun hands the store of the first start to those that come later, who look in vain.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    quick = {"last_call_timeout": 1, "keep_alive_interval": 1, "keep_alive_max_attempt": 3}
    config = elastic(
        max_nodes=2,
        nproc_per_node=1,
        run_id="machines",
        rdzv_endpoint=f"localhost:{port}",
        rdzv_configs=quick,
        max_restarts=3,
        start_method="fork",  # this process has computed nothing
    )
    elastic_launch(config, on_machine)(name, list(map(str, arguments)), folder)


def on_machine(name, arguments, folder):
    """Train; alone, stay in step 3 until another machine asks to join, and with it in step 5."""
    world = int(os.environ["WORLD_SIZE"])
    sys.argv = ["etadlite", *arguments]
    sys.stderr = (folder / f"{name}.{world}.err").open("a")
    torch.set_num_threads(1)
    step, hears, asked = loop.step_in_memory, Interruption._note, []

    def hearing(interruption, *given):
        asked.append(True)
        hears(interruption, *given)

    def waiting(training, batch):
        steps, left = training.progress.steps, folder / "left"
        while not (left.exists() or asked) and (world, steps) in ((1, 2), (2, 4)):
            (folder / f"{name}.{world}.{steps}").touch()
            time.sleep(0.02)
        return step(training, batch)

    Interruption._note, loop.step_in_memory = hearing, waiting
    try:
        main()
    finally:
        sys.stderr.flush()


@pytest.mark.slow
def test_machines_join_and_leave_a_training(tiny, tmp_path):
    changes = ("training.epochs=8", "training.batch_size=2", "training.checkpoint_minutes=0")
    given = [*tiny.on_features, *changes]
    arguments = ("train", "stickfigures", *given, "--quiet", "--out", tmp_path, "--resume", "last")
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    server, patience = mp.get_context("forkserver"), time.monotonic() + 600
    first, second = (
        server.Process(target=machine, args=(name, port, arguments, tmp_path))
        for name in ("first", "second")
    )

    def until(*names):
        while not all((tmp_path / name).exists() for name in names):
            assert first.is_alive(), (tmp_path / "first.1.err").read_text()
            assert time.monotonic() < patience, sorted(tmp_path.iterdir())
            time.sleep(0.02)

    try:
        first.start()
        until("first.1.2")
        second.start()
        until("first.2.4", "second.2.4")
        (tmp_path / "left").touch()
        os.killpg(second.pid, signal.SIGKILL)  # like a machine that is switched off
        first.join(600)
        assert first.exitcode == 0
    finally:
        for process in (first, second):
            if process.pid and process.is_alive():
                os.killpg(process.pid, signal.SIGKILL)
    folder = tmp_path / "stickfigures" / "001"
    assert (folder / "report.json").exists()
    found = [record for record in read_metrics(folder) if "loss" in record]
    assert [record["step"] for record in found] == list(range(1, 9))
    run_training(preset("stickfigures", given), tmp_path / "alone")
    whole = [record["loss"] for record in read_metrics(tmp_path / "alone") if "loss" in record]
    assert [record["loss"] for record in found] == pytest.approx(whole, rel=1e-4)


def test_processes_of_a_start_share_what_no_earlier_start_has_written():
    store, limit = dist.HashStore(), timedelta(seconds=20)
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            # The others come first, and find the name that the start before them left.
            others = [pool.submit(part_of_this_start, store, r, 3, limit) for r in (2, 1)]
            time.sleep(0.05)
            assert not any(other.done() for other in others)
            first = part_of_this_start(store, 0, 3, limit)
            parts = [first, *(other.result() for other in others)]
        assert not first.check(["address"])
        first.set("address", "here")
        assert all(part.get("address") == b"here" for part in parts)


def test_a_process_that_is_lost_while_they_meet_is_one_sentence():
    store = dist.HashStore()
    with ThreadPoolExecutor(1) as pool:
        # Process 0 is lost after it has answered, before it says where it listens.
        pool.submit(part_of_this_start, store, 0, 2, timedelta(seconds=20))
        with pytest.raises(StoppedError, match="^the 2 processes did not meet .*; give the comm"):
            meet("gloo", store, 1, 2, timedelta(seconds=2))
    assert not dist.is_initialized()


def test_a_run_is_remembered_while_its_directory_is_there(tmp_path):
    store, folder = dist.HashStore(), tmp_path / "001"
    assert remembered_run(store) is None
    folder.mkdir()
    remember_run(store, folder)
    assert remembered_run(store) == str(folder)
    folder.rmdir()
    assert remembered_run(store) is None


def test_a_process_that_the_first_one_never_answers_ends():
    store = dist.HashStore()
    store.set("etadlite/start", "of a start that is gone")
    with pytest.raises(TimeoutError, match="did not answer process 1"):
        part_of_this_start(store, 1, 2, timedelta(seconds=0.05))


@pytest.mark.parametrize(("processes", "is_kept"), [("1", False), ("2", True)])
def test_a_process_that_fails_with_others_says_so_before_torchrun_ends_it(
    monkeypatch, processes, is_kept
):
    monkeypatch.setenv("WORLD_SIZE", processes)
    usual = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(StoppedError), Interruption() as interruption:
            raise StoppedError("another process was lost")
        assert (signal.getsignal(signal.SIGTERM) == interruption._note) == is_kept
        assert signal.getsignal(signal.SIGINT) != interruption._note
    finally:
        signal.signal(signal.SIGTERM, usual)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tiny, tmp_path, monkeypatch):
    changes = ("training.epochs=4", "training.batch_size=2", "training.checkpoint_minutes=0")
    arguments = ("train", "stickfigures", *tiny.on_features, *changes, "--quiet", "--out", tmp_path)
    assert command_in_two(arguments, tmp_path, dies=[(1, 2, 0)])[0] is not None
    folder = tmp_path / "stickfigures" / "001"
    assert [record["step"] for record in read_metrics(folder)] == [1, 2]
    words = ["etadlite", *map(str, arguments), "--resume", "last"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    run_training(preset("stickfigures", [*tiny.on_features, *changes]), tmp_path / "alone")
    both = [
        [r["loss"] for r in read_metrics(f) if "loss" in r] for f in (folder, tmp_path / "alone")
    ]
    assert both[0] == pytest.approx(both[1], rel=1e-4)
