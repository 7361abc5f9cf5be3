"""The training loop, the system, its checkpoints, and what a run leaves."""

import copy
import json
import mmap
import platform
import subprocess
import sys
import time
from math import cos, pi
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etadlite.base.devices import resolve_device, use_bf16
from etadlite.base.draws import Draws
from etadlite.base.errors import InputError
from etadlite.base.weights import save_weights
from etadlite.config import TrainingSettings
from etadlite.data.datasets import collate
from etadlite.encoders import tiny_encoder
from etadlite.encoders.build import build_encoder
from etadlite.model.checkpoint import checkpoint_settings, load_checkpoint, save_checkpoint
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.runs import testing
from etadlite.runs.pictures import draw_test_videos
from etadlite.runs.run import new_run_folder, run_training
from etadlite.runs.testing import evaluate
from etadlite.training import loop
from etadlite.training.loop import (
    learning_rate_factor,
    loader,
    make_optimizer,
    open_split,
    train,
)
from etadlite.training.recorder import read_metrics
from etadlite.training.report import RunReport, results_table
from etadlite.training.step import train_step


def e2e(tiny, *changes):
    return preset("e2e_stickfigures", [*tiny.assignments, *changes])


def on_features(tiny, *changes):
    return preset("stickfigures", [*tiny.on_features, *changes])


def weights_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    return [name for name in a if torch.equal(a[name], b[name])]


def test_the_loss_falls_on_a_tiny_set(tiny):
    records = []
    settings = on_features(tiny, "training.epochs=40", "training.warmup_epochs=0")
    train(settings, log=records.append, progress=False)
    losses = [record["loss"] for record in records]
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert sum(r["class"] for r in records[-5:]) < 0.5 * sum(r["class"] for r in records[:5])


def test_end_to_end_the_loss_falls_and_the_encoder_moves(tiny):
    records = []
    settings = e2e(tiny, "training.epochs=12", "training.warmup_epochs=0", "data.jitter=0")
    before = weights_of(build_encoder(settings.encoder))
    result = train(settings, log=records.append, progress=False)
    losses = [record["loss"] for record in records]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    after = weights_of(result.system.encoder.encoder)
    assert same(before, after) == ["feature_mean", "feature_std"]


@pytest.mark.usefixtures("one_thread")
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny):
    changes = ("training.epochs=2", "training.batch_size=1")
    first, again, other = (
        weights_of(train(e2e(tiny, *changes, f"seed={seed}"), progress=False).system)
        for seed in (3, 3, 4)
    )
    assert len(same(first, again)) == len(first)
    assert len(same(first, other)) < 0.7 * len(first)


@pytest.mark.usefixtures("one_thread")
def test_a_run_trains_the_same_whether_it_tests_or_not(tiny):
    settings = on_features(tiny, "training.epochs=2")
    data = open_split(settings, training=False)

    def test(system, epoch):
        testing.test_system(system, settings, data, progress=False)

    quiet = weights_of(train(settings, progress=False).system)
    tested = weights_of(train(settings, after_epoch=test, progress=False).system)
    assert len(same(quiet, tested)) == len(quiet)


def test_at_ratio_zero_the_encoder_stays_as_it_was(tiny):
    settings = e2e(tiny, "sampling.snippet_ratio=0", "training.weight_decay=0.5")
    before = weights_of(build_encoder(settings.encoder))
    result = train(settings, progress=False)
    assert len(same(before, weights_of(result.system.encoder.encoder))) == len(before)
    assert len(make_optimizer(result.system, settings.training).param_groups) == 1


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_the_optimizer_computes_what_its_formula_says(tiny, name):
    """Against plain float64: the fused kernel may differ by rounding alone."""
    settings = on_features(tiny, f"training.optimizer={name}", "training.weight_decay=0.1")
    system = System(settings)
    optimizer = make_optimizer(system, settings.training)
    rate, decay = settings.training.detector_lr, settings.training.weight_decay
    values = [p.detach().double() for p in system.parameters()]
    means, squares = [torch.zeros_like(v) for v in values], [torch.zeros_like(v) for v in values]
    for step in range(1, 6):
        for number, parameter in enumerate(system.parameters()):
            parameter.grad = torch.randn_like(parameter)
            gradient = parameter.grad.double()
            if name == "adam":
                gradient += decay * values[number]
            else:
                values[number] *= 1 - rate * decay
            means[number] = 0.9 * means[number] + 0.1 * gradient
            squares[number] = 0.999 * squares[number] + 0.001 * gradient**2
            root = (squares[number] / (1 - 0.999**step)).sqrt() + 1e-8
            values[number] -= rate * means[number] / (1 - 0.9**step) / root
        optimizer.step()
    for parameter, value in zip(system.parameters(), values, strict=True):
        torch.testing.assert_close(parameter.double(), value, rtol=1e-6, atol=1e-7)


def test_an_optimizer_that_goes_on_from_a_state_computes_the_same_bits(tiny):
    """A state has other layouts than convolutions whose channels come last."""
    settings = e2e(tiny)
    whole, again = System(settings), System(settings)
    optimizer, other = (make_optimizer(s, settings.training) for s in (whole, again))

    def update(system, optimizer, step):
        torch.manual_seed(step)
        for parameter in system.parameters():
            parameter.grad = torch.randn_like(parameter, memory_format=torch.preserve_format)
        optimizer.step()

    update(whole, optimizer, 0)
    state = optimizer.state_dict()
    for values in state["state"].values():
        values |= {name: value.contiguous() for name, value in values.items()}
    other.load_state_dict(copy.deepcopy(state))
    again.load_state_dict(whole.state_dict())
    for step in (1, 2):
        update(whole, optimizer, step)
        update(again, other, step)
    assert len(same(weights_of(whole), weights_of(again))) == len(weights_of(whole))


def test_at_an_encoder_rate_of_zero_only_the_detector_moves(tiny):
    settings = e2e(tiny, "training.encoder_lr=0")
    before = weights_of(build_encoder(settings.encoder))
    system = train(settings, progress=False).system
    assert len(same(before, weights_of(system.encoder.encoder))) == len(before)
    torch.manual_seed(settings.seed)
    fresh = weights_of(System(settings).detector)
    assert len(same(fresh, weights_of(system.detector))) < 0.5 * len(fresh)


def test_a_single_step_moves_the_weights(tiny):
    # One step a training: the rate must be above zero in the first step, which is also the last.
    settings = on_features(tiny, "training.epochs=1", "training.warmup_epochs=0")
    torch.manual_seed(settings.seed)
    before = weights_of(System(settings))
    begun = time.perf_counter()
    result = train(settings, progress=False)
    taken = time.perf_counter() - begun
    assert len(same(before, weights_of(result.system))) < 0.5 * len(before)
    assert result.progress.peak_activation_bytes > 0
    assert taken > result.progress.seconds_per_step > 0
    assert 0 < result.progress.waiting_share < 1
    assert result.videos_per_second > settings.training.batch_size / taken


def test_gradients_are_clipped_and_the_norm_before_is_reported(tiny):
    moved = {}
    for limit in ("1e-9", "null"):
        settings = on_features(tiny, f"training.clip_norm={limit}")
        torch.manual_seed(0)
        system = System(settings)
        batch = collate([open_split(settings, training=True)[0]])
        optimizer = torch.optim.SGD(system.parameters(), lr=1.0)
        before = weights_of(system)
        record = train_step(system, batch, optimizer, settings)
        step = torch.cat([(system.state_dict()[k] - v).flatten() for k, v in before.items()])
        moved[limit] = float(step.double().norm())
        assert record["gradient_norm"] > 1
    assert moved["1e-9"] < 2e-9
    assert moved["null"] == pytest.approx(record["gradient_norm"], rel=1e-3)


def test_the_reported_loss_is_the_sum_of_its_parts(tiny):
    settings = e2e(tiny)
    system = System(settings)
    batch = next(iter(loader(open_split(settings, training=True), settings, training=True)))
    record = train_step(system, batch, make_optimizer(system, settings.training), settings)
    parts = ["boundary", "stage1", "stage2", "stage3", "class"]
    assert set(record) == {*parts, "loss", "gradient_norm"}
    assert record["loss"] == pytest.approx(sum(record[part] for part in parts), rel=1e-5)


def test_the_order_of_training_videos_changes_and_that_of_test_videos_does_not(tiny):
    settings = on_features(tiny, "training.batch_size=1")

    def orders():
        batches = loader(open_split(settings, training=True), settings, training=True)
        for batches.batch_sampler.epoch in range(20):
            yield tuple(batch.names[0] for batch in batches)

    assert set(orders()) == {
        ("training_00000", "training_00001"),
        ("training_00001", "training_00000"),
    }
    assert list(orders()) == list(orders())
    batches = loader(open_split(settings, training=True), settings, training=False)
    for _ in range(2):
        assert [batch.names[0] for batch in batches] == ["training_00000", "training_00001"]


# The learning rate


def test_the_step_schedule_divides_by_ten_from_its_epoch_on():
    settings = TrainingSettings(schedule="step", step_epoch=5, epochs=6)
    assert learning_rate_factor(settings, 4.999) == 1.0
    assert learning_rate_factor(settings, 5.0) == 0.1


@given(st.floats(0, 1, exclude_max=True))
def test_the_cosine_schedule_warms_up_and_falls_to_zero(share):
    settings = TrainingSettings(schedule="cosine", epochs=12, warmup_epochs=2)
    epoch = 12 * share
    factor = learning_rate_factor(settings, epoch)
    if epoch < 2:
        assert factor == pytest.approx(epoch / 2)
    else:
        assert factor == pytest.approx(0.5 + 0.5 * cos(pi * (epoch - 2) / 10))


@pytest.mark.parametrize("schedule", ["step", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 3, 10])
def test_no_step_of_a_training_has_a_rate_of_zero(tiny, monkeypatch, schedule, warmup):
    factors = []

    def watched(settings, epoch):
        factors.append(learning_rate_factor(settings, epoch))
        return factors[-1]

    monkeypatch.setattr("etadlite.training.loop.learning_rate_factor", watched)
    changes = [f"training.schedule={schedule}", f"training.warmup_epochs={warmup}"]
    settings = on_features(tiny, "training.epochs=3", "training.step_epoch=2", *changes)
    train(settings, progress=False)
    assert len(factors) == 3
    assert min(factors) > 0
    if schedule == "step" and warmup == 0:
        assert factors == [1.0, 1.0, 0.1]


def test_the_time_of_a_step_is_the_median_without_the_first_three(tiny, monkeypatch):
    """The first ones warm up; and they may be all that there are."""
    step, clock, needs = loop.step_in_memory, [0.0], iter([90.0, 80.0, 70.0, 4.0, 2.0, 3.0])

    def slow(training, batch):
        clock[0] += next(needs)
        return step(training, batch)

    now = SimpleNamespace(perf_counter=lambda: clock[0], monotonic=time.monotonic)
    monkeypatch.setattr(loop, "time", now)
    monkeypatch.setattr(loop, "step_in_memory", slow)
    trained = train(on_features(tiny, "training.epochs=6"), progress=False)
    assert trained.progress.seconds_per_step == 3.0
    needs = iter([90.0, 80.0, 70.0])
    trained = train(on_features(tiny, "training.epochs=3"), progress=False)
    assert trained.progress.seconds_per_step == 80.0


# The system


def test_the_chunk_size_does_not_change_the_features(tiny):
    settings = e2e(tiny)
    inputs = open_split(settings, training=False)[0].inputs[None]
    found = []
    for chunk in (1, 16):
        system = System(e2e(tiny, f"encoder.chunk_size={chunk}")).eval()
        with torch.no_grad():
            found.append(system.features(inputs))
    assert found[0].shape == (1, 48, 16)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_bf16_is_for_the_encoder_and_gives_float_features_close_by(tiny):
    inputs = open_split(e2e(tiny), training=False)[0].inputs[None]
    plain, short = (
        System(e2e(tiny, f"training.precision={kind}")).eval() for kind in ("fp32", "bf16")
    )
    with torch.no_grad():
        expected, got = plain.features(inputs), short.features(inputs)
    assert got.dtype == torch.float32
    assert 0 < float((got - expected).norm() / expected.norm()) < 0.05


def test_a_detector_in_bf16_scores_in_fp32_and_learns_the_same(tiny, tmp_path):
    settings = {kind: on_features(tiny, f"detector.precision={kind}") for kind in ("fp32", "bf16")}
    data = open_split(settings["fp32"], training=True)
    batch = collate([data[number] for number in range(len(data))])
    outputs, gradients = {}, {}
    for kind, chosen in settings.items():
        torch.manual_seed(0)
        system = System(chosen)
        with torch.no_grad():
            outputs[kind] = system(batch.inputs)
        train_step(system, batch, make_optimizer(system, chosen.training), chosen)
        gradients[kind] = torch.cat([p.grad.flatten() for p in system.parameters()])
    plain, short = outputs["fp32"], outputs["bf16"]
    for name in ("iou", "offsets", "boundary"):
        a, b = (getattr(output.stages[0], name) for output in (plain, short))
        assert b.dtype == torch.float32
        assert 0 < float((a - b).abs().max()) < 0.03
    assert short.boundaries.dtype == short.classes.dtype == torch.float32
    assert len(short.boundaries.unique()) > 0.9 * len(plain.boundaries.unique())  # not rounded
    assert torch.cosine_similarity(*gradients.values(), dim=0) > 0.98
    save_checkpoint(tmp_path / "c.safetensors", system, settings["bf16"])
    assert load_checkpoint(tmp_path / "c.safetensors", settings["fp32"])


def test_all_valid_proposals_are_evaluated_in_test_and_some_in_training(tiny):
    settings = on_features(tiny, "sampling.proposal_ratio=0.5", "detector.max_duration=4")
    system = System(settings)
    count = 16 + 15 + 14 + 13
    assert system.proposals.shape == (count, 2)
    assert system(torch.randn(2, 48, 16)).stages[0].proposals.shape == (2, count, 2)
    sampled = system.sample_proposals(Draws.fresh(2), [])
    assert sampled.shape == (2, count // 2, 2)
    assert not torch.equal(sampled[0], sampled[1])


def test_encoder_and_detector_must_agree_on_the_channels(tiny):
    with pytest.raises(InputError, match="tiny gives 48 channels, but detector.in_channels is 64"):
        System(e2e(tiny, "detector.in_channels=64"))


def test_weights_of_another_encoder_are_refused(tiny, tmp_path):
    save_weights(tmp_path / "other.safetensors", torch.nn.Linear(2, 2), {})
    with pytest.raises(InputError, match=r"other\.safetensors do not fit: \d+ keys missing"):
        System(e2e(tiny, f"encoder.weights={tmp_path / 'other.safetensors'}"))


def test_a_missing_device_is_refused():
    missing = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(InputError, match=f"there is no {missing} device here; use device=cpu"):
        resolve_device(missing)
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")


FAULTS = """
import resource
import torch
from etadlite.base.devices import resolve_device

def use():
    tensors = [torch.ones(2**21) for _ in range(10)]  # of 8 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

resolve_device("cpu")
for _ in range(5):  # until the heap is large enough
    before = use()
print(use() - before)
"""


def test_memory_that_was_freed_is_used_again_without_asking_the_system():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc can be told to")
    ended = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True)
    pages = 80 * 2**20 / mmap.PAGESIZE
    assert int(ended.stdout) < pages / 10  # else it is all of them


# Checkpoints


def test_a_checkpoint_gives_back_the_system_and_its_settings(trained, tiny):
    path = trained / "checkpoint.safetensors"
    settings = e2e(tiny)
    assert checkpoint_settings(path) == settings
    system = load_checkpoint(path, settings).eval()
    copy = trained.parent / "copy.safetensors"
    save_checkpoint(copy, system, settings)
    again = load_checkpoint(copy, settings).eval()
    assert len(same(weights_of(system), weights_of(again))) == len(weights_of(system))
    inputs = open_split(settings, training=False)[0].inputs[None]
    with torch.no_grad():
        assert torch.equal(system(inputs).boundaries, again(inputs).boundaries)


def test_a_checkpoint_predicts_what_the_run_predicted(trained, tiny):
    settings = e2e(tiny)
    system = load_checkpoint(trained / "checkpoint.safetensors", settings)
    data = open_split(settings, training=False)
    predictions, precision = testing.test_system(system, settings, data, progress=False)
    stored = json.loads((trained / "predictions.json").read_text())
    # Equal but for rounding, which differs with where memory happens to lie.
    for name, found in stored["results"].items():
        again = predictions["results"][name]
        assert sorted(i["label"] for i in again) == sorted(i["label"] for i in found)
        assert [item["score"] for item in again] == pytest.approx(
            [item["score"] for item in found], rel=1e-3, abs=1e-6
        )
    report = json.loads((trained / "report.json").read_text())
    assert precision.average == pytest.approx(report["average_mAP"], abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("detector.width=64", "detector.width is 32 there and 64 here"),
        ("data.snippets=32", "data.snippets is 16 there and 32 here"),
        ("losses.stage_positive_iou=[0.7]", "stages is 3 there and 1 here"),
        ('detector.classes=["jump"]', "detector.classes is .*unwind.* there and .'jump',. here"),
        ("encoder.name=r2plus1d_18", "encoder.name is tiny there and r2plus1d_18 here"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_with_the_difference(
    trained, tiny, change, message
):
    with pytest.raises(InputError, match=f"is a checkpoint of another config: {message}") as error:
        load_checkpoint(trained / "checkpoint.safetensors", e2e(tiny, change))
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_features_is_not_one_of_videos(trained, tiny):
    with pytest.raises(InputError, match="encoder.name is tiny there and features here"):
        load_checkpoint(trained / "checkpoint.safetensors", on_features(tiny))


def test_settings_that_no_weight_depends_on_may_differ(trained, tiny):
    changed = e2e(tiny, "training.epochs=9", "inference.max_detections=3", "seed=5")
    assert load_checkpoint(trained / "checkpoint.safetensors", changed).encoder is not None


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, tiny):
    save_weights(tmp_path / "bare.safetensors", tiny_encoder(pretrained=False), {})
    with pytest.raises(InputError, match="weights but no settings: it is no checkpoint"):
        checkpoint_settings(tmp_path / "bare.safetensors")
    save_weights(tmp_path / "old.safetensors", torch.nn.Linear(1, 1), {"settings": "{"})
    with pytest.raises(InputError, match=r"old\.safetensors: its text of settings is not JSON"):
        checkpoint_settings(tmp_path / "old.safetensors")
    save_weights(tmp_path / "odd.safetensors", torch.nn.Linear(1, 1), {"settings": "[1]"})
    with pytest.raises(InputError, match=r"odd\.safetensors"):
        checkpoint_settings(tmp_path / "odd.safetensors")
    (tmp_path / "text.safetensors").write_text("weights")
    with pytest.raises(InputError, match="not a complete safetensors file"):
        checkpoint_settings(tmp_path / "text.safetensors")


# Runs


def test_a_run_leaves_everything_in_its_directory(trained, tiny):
    files = {str(path.relative_to(trained)) for path in trained.rglob("*.*") if path.is_file()}
    assert files - {name for name in files if name.startswith("tensorboard")} == {
        "checkpoint.safetensors",
        "config.json",
        "metrics.jsonl",
        "pictures/curves.png",
        "pictures/timeline_validation_00000.png",
        "predictions.json",
        "report.html",
        "report.json",
    }
    assert any(name.startswith("tensorboard") for name in files)
    config = json.loads((trained / "config.json").read_text())
    assert config == json.loads(e2e(tiny).model_dump_json())
    steps, tests = read_metrics(trained)
    assert (steps["step"], steps["epoch"]) == (1, 1.0)
    assert tests["average_mAP"] == pytest.approx(sum(tests["mAP"].values()) / 5)
    predictions = json.loads((trained / "predictions.json").read_text())
    assert list(predictions) == ["version", "results", "external_data"]
    found = predictions["results"]["validation_00000"]
    assert 0 < len(found) <= 200
    assert all(0 <= start < end <= 30.8 + 1e-6 for start, end in (d["segment"] for d in found))


def test_tests_come_as_often_as_asked_and_after_the_last_epoch(tiny, tmp_path):
    settings = on_features(tiny, "training.epochs=5", "training.test_every=2")
    run_training(settings, tmp_path, progress=False)
    tests = [r["epoch"] for r in read_metrics(tmp_path) if "average_mAP" in r]
    assert tests == [2, 4, 5]


def test_features_alone_are_enough_for_a_run(tiny, tmp_path):
    settings = on_features(tiny, f"data.videos={tmp_path / 'nowhere'}")
    report = run_training(settings, tmp_path, progress=False)
    assert 0 <= report.average <= 1
    assert (tmp_path / "pictures" / "timeline_validation_00000.png").stat().st_size > 5000


def test_new_run_folders_are_numbered(tmp_path):
    assert [new_run_folder(tmp_path, "x").name for _ in range(3)] == ["001", "002", "003"]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no run directory: it has no metrics.jsonl"):
        read_metrics(tmp_path)


def perfect(tiny, label=None):
    database = json.loads((tiny.data / "annotations.json").read_text())["database"]
    found = [
        {"segment": a["segment"], "label": label or a["label"], "score": 0.9}
        for a in database["validation_00000"]["annotations"]
    ]
    return {"version": "1", "results": {"validation_00000": found}, "external_data": {}}


def test_perfect_predictions_score_one_and_unannotated_classes_do_not_count(tiny):
    classes = [*preset("e2e_stickfigures").detector.classes, "never"]
    settings = e2e(tiny, f"detector.classes={json.dumps(classes)}")
    assert evaluate(settings, perfect(tiny)).average == 1.0
    predictions = perfect(tiny)
    predictions["results"]["validation_00000"].append(
        {"segment": [0.0, 9.0], "label": "never", "score": 1.0}
    )
    assert evaluate(settings, predictions).average == 1.0
    assert len(predictions["results"]["validation_00000"]) == 3


def test_without_classes_any_label_of_the_truth_counts_as_action(tiny):
    settings = e2e(tiny, "detector.classes=[]")
    assert evaluate(settings, perfect(tiny, "action")).average == 1.0


def test_timelines_are_drawn_for_the_first_test_videos(tiny, tmp_path):
    paths = draw_test_videos(e2e(tiny), {"a": perfect(tiny), "b": perfect(tiny)}, tmp_path)
    assert [path.name for path in paths] == ["timeline_validation_00000.png"]


def report(folder, average, seconds=0.5):
    return RunReport(folder, (0.3, 0.5), (average + 0.1, average - 0.1), average, 2**20, seconds)


def test_the_table_shows_percent_and_over_seeds_mean_and_deviation(tmp_path):
    seeds = [report(tmp_path, 0.2), report(tmp_path, 0.3), report(tmp_path, 0.4, seconds=9.0)]
    lines = results_table({"one": seeds[:1], "three seeds": seeds}).splitlines()
    assert lines[0].split() == [
        *("system", "mAP@0.3", "mAP@0.5", "average", "activations", "s/step")
    ]
    assert lines[2].split() == ["one", "30.0", "10.0", "20.0", "1.0", "MiB", "0.500"]
    assert "30.0 ± 10.0" in lines[3]
    assert lines[3].endswith("0.500")
    assert len({len(line) for line in lines}) == 1


def test_auto_precision_is_single_on_the_cpu():
    cpu = torch.device("cpu")
    assert [use_bf16(name, cpu) for name in ("auto", "fp32", "bf16")] == [False, False, True]
