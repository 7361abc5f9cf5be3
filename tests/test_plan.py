"""The predicted memory of a training step against the measured one."""

import itertools

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from etadlite.base.errors import InputError
from etadlite.base.gpu import gpu_memory
from etadlite.cli import app
from etadlite.config import Settings
from etadlite.encoders import freeze, tiny_encoder
from etadlite.memory import LiveTensors, StepMemory, measure
from etadlite.memory.measurement import _Passes, measure_step
from etadlite.memory.plan import advice, largest, memory_table, plan, propose, with_chunk_size
from etadlite.model.sequential_encoder import SequentialEncoder
from etadlite.presets import placed, preset
from etadlite.runs import profiling
from etadlite.stickfigures.dataset import Size, make_dataset

SMALL = (
    "device=cpu",
    "data.features=null",
    "data.snippets=16",
    "data.frames=8",
    "data.decode_size=[32,32]",
    "data.crop=32",
    "detector.width=32",
    "detector.hidden=32",
    "detector.head=32",
    "detector.roi_size=8",
    "detector.max_duration=16",
    "training.precision=fp32",
)
ROWS = ("weights", "gradients", "optimiser", "inputs", "prefix", "pass_1", "pass_2", "pass_3")


def tiny(*changes: str) -> Settings:
    return preset("e2e_stickfigures", (*SMALL, "encoder.chunk_size=4", *changes))


def r2plus1d(*changes: str) -> Settings:
    return preset("anet_tsp", (*SMALL, "data.videos=nowhere", "encoder.name=r2plus1d_18", *changes))


def assert_alike(settings: Settings) -> None:
    predicted, measured = plan(settings).rows, measure_step(settings).rows
    for row in (*ROWS, "update", "total"):
        ours, real = getattr(predicted, row), getattr(measured, row)
        assert ours == pytest.approx(real, rel=0.1, abs=0.002 * measured.total), row
    assert predicted.total == pytest.approx(measured.total, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "chunk", "ratio", "precision"),
    [
        (1, 1, 0.3, "fp32"),
        (2, 4, 0.3, "bf16"),
        (1, 4, 1, "bf16"),
        (2, 3, 1, "fp32"),
        (2, 100, 0.3, "fp32"),
        (2, 2, 0, "fp32"),
    ],
)
def test_the_prediction_for_the_tiny_encoder_is_what_a_step_takes(batch, chunk, ratio, precision):
    assert_alike(
        tiny(
            f"training.batch_size={batch}",
            f"encoder.chunk_size={chunk}",
            f"sampling.snippet_ratio={ratio}",
            f"training.precision={precision}",
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stages", "batch", "chunk", "ratio", "keep"),
    [(2, 1, 4, 1, "device"), (0, 2, 3, 0.3, "nothing")],
)
def test_the_prediction_for_r2plus1d_is_what_a_step_takes(stages, batch, chunk, ratio, keep):
    assert_alike(
        r2plus1d(
            f"encoder.frozen_stages={stages}",
            f"training.batch_size={batch}",
            f"encoder.chunk_size={chunk}",
            f"sampling.snippet_ratio={ratio}",
            f"encoder.keep_prefix={keep}",
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of", "batch", "chunk", "strategy"),
    [(tiny, 2, 4, "random"), (r2plus1d, 1, 3, "random"), (r2plus1d, 2, 100, "farthest")],
)
def test_the_prediction_with_a_feature_bank_is_what_a_step_takes(of, batch, chunk, strategy):
    chosen = (
        f"training.batch_size={batch}",
        f"encoder.chunk_size={chunk}",
        f"sampling.snippet_strategy={strategy}",
    )
    assert_alike(of(*chosen, "sampling.others=bank"))
    without = plan(of(*chosen)).rows
    read = plan(of(*chosen, "sampling.others=bank", "data.workers=0")).rows.inputs
    assert read == pytest.approx((1 if strategy == "farthest" else 5 / 16) * without.inputs)
    if chunk == 100:  # all sampled snippets at once, instead of all others
        assert plan(of(*chosen, "sampling.others=bank")).rows.pass_1 < 0.6 * without.pass_1


@pytest.mark.slow
@pytest.mark.parametrize("train", ["norms", "head", "adapters"])
@pytest.mark.parametrize("of", [tiny, r2plus1d])
def test_the_prediction_with_few_trained_parameters_is_what_a_step_takes(of, train):
    chosen = of("training.batch_size=1", f"encoder.train={train}", "encoder.adapter_rank=4")
    assert_alike(chosen)
    whole, less = plan(of("training.batch_size=1")).rows, plan(chosen).rows
    assert less.gradients + less.optimiser < whole.gradients + whole.optimiser


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("of", [tiny, r2plus1d])
def test_the_prediction_with_frozen_weights_in_bf16_is_what_a_step_takes(of, kind):
    few = ("training.batch_size=1", "encoder.train=adapters", f"encoder.adapter_kind={kind}")
    few += ("data.snippets=4", "detector.max_duration=4")  # bf16 takes long on many CPUs
    rounded = of(*few, "training.precision=bf16", "encoder.frozen_dtype=bf16")
    assert_alike(rounded)
    if of is r2plus1d:
        whole = plan(of(*few, "training.precision=bf16")).rows
        assert plan(rounded).rows.weights < 0.55 * whole.weights


@pytest.mark.slow
@pytest.mark.parametrize("train", ["all", "adapters"])
@pytest.mark.parametrize("of", [tiny, r2plus1d])
def test_the_prediction_with_checkpointed_blocks_is_what_a_step_takes(of, train):
    two_chunks = ("training.batch_size=1", "sampling.snippet_ratio=0.5")
    chosen = of(f"encoder.train={train}", *two_chunks, "encoder.checkpointing=true")
    assert_alike(chosen)
    kept = plan(chosen.changed(["encoder.checkpointing=false"])).rows
    assert plan(chosen).rows.pass_3 < 0.85 * kept.pass_3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of", "change"),
    [
        (tiny, "sampling.others=bank"),
        (tiny, "training.precision=bf16"),
        (r2plus1d, "sampling.others=encode"),
    ],
)
def test_the_prediction_with_kept_activations_is_what_a_step_takes(of, change):
    chosen = of("training.batch_size=1", "encoder.keep_prefix=graph", change)
    assert_alike(chosen)
    once = plan(chosen.changed(["encoder.keep_prefix=device"])).rows
    assert plan(chosen).rows.pass_2 > 1.1 * once.pass_2


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["farthest", "gradient_norm", "boundary"])
def test_late_strategies_keep_the_prefix_of_all_snippets(strategy):
    settings = r2plus1d("training.batch_size=1", f"sampling.snippet_strategy={strategy}")
    kept = plan(settings).rows.prefix / plan(r2plus1d("training.batch_size=1")).rows.prefix
    assert kept == pytest.approx(1 if strategy == "boundary" else 16 / 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stickfigures", "anet_tsp"])
def test_the_prediction_on_features_is_what_a_step_takes(name):
    settings = preset(name, ("device=cpu", "training.batch_size=2", "sampling.proposal_ratio=0.06"))
    assert_alike(settings)
    assert plan(settings).rows.pass_1 == plan(settings).rows.prefix == 0


class Wide(nn.Module):
    """An encoder whose features are larger than all that it computes."""

    channels = 2048

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3, self.channels)

    def forward(self, frames):
        return self.mix(frames.float().mean((2, 3, 4)) / 255)


@pytest.mark.slow
def test_the_prediction_where_features_decide_is_what_a_step_takes():
    """Of two videos; of a single one the gradient is not copied, which the plan leaves out."""
    own = ("encoder.name=test_plan:Wide", "encoder.frozen_stages=null", "encoder.chunk_size=4")
    sizes = ("data.snippets=64", "data.frames=1", "data.decode_size=[4,4]", "data.crop=4")
    few = ("training.batch_size=2", "detector.in_channels=2048", "sampling.proposal_ratio=0.01")
    settings = preset("anet_tsp", (*SMALL, "data.videos=nowhere", *own, *sizes, *few))
    predicted, measured = plan(settings).rows, measure_step(settings).rows
    for row in ("pass_1", "pass_3", "total"):
        assert getattr(predicted, row) == pytest.approx(getattr(measured, row), rel=0.02), row


def test_rows_add_up_to_the_total():
    for settings in (tiny(), r2plus1d("training.batch_size=1")):
        rows = plan(settings).rows
        assert sum(rows.stack().values()) == rows.total
        assert rows.total == rows.lasting + max(rows.pass_1, rows.pass_2, rows.pass_3, rows.update)


@pytest.mark.slow
def test_on_a_gpu_frames_wait_in_host_memory_and_the_prefix_where_the_setting_says():
    on_gpu = ("device=cuda", "training.batch_size=4")
    on_device = plan(r2plus1d(*on_gpu)).rows
    on_host = plan(r2plus1d(*on_gpu, "encoder.keep_prefix=host")).rows
    frames = 4 * 16 * 3 * 8 * 32 * 32
    assert on_device.inputs == 0
    assert on_device.host == frames
    assert on_host.prefix == 0
    assert on_host.host == frames + on_device.prefix > frames
    assert on_host.total <= on_device.total


@pytest.mark.slow
def test_the_largest_values_fit_and_the_next_do_not():
    settings = tiny("training.batch_size=2", "sampling.snippet_ratio=0.25")
    budget = plan(settings).rows.total + 2**21
    found = largest(settings, budget)
    for name, value in (
        ("training.batch_size", found["batch"]),
        ("encoder.chunk_size", found["chunk"]),
    ):
        assert plan(tiny(f"{name}={value}")).rows.total <= 1.01 * budget
        assert plan(tiny(f"{name}={value + 1}")).rows.total > 0.99 * budget
    assert found["batch"] >= 2
    assert found["chunk"] >= 4


@pytest.mark.slow
def test_the_most_that_fits_is_proposed_in_words():
    settings = tiny("training.batch_size=1", "sampling.snippet_ratio=0.25")
    everything = plan(settings.changed(["sampling.snippet_ratio=1"])).rows.total
    most = propose(settings, everything)
    assert (most.train, most.chunk, most.snippets, most.total) == ("all", 4, 16, everything)
    for budget in (everything - 2**16, plan(settings.changed(["encoder.chunk_size=1"])).rows.total):
        found = propose(settings, budget)
        changes = (f"encoder.train={found.train}", f"encoder.chunk_size={found.chunk}")
        chosen = settings.changed([*changes, f"sampling.snippet_ratio={found.snippets / 16}"])
        assert 0.9 * found.total < plan(chosen).rows.total <= found.total <= budget
        assert found.parameters <= most.parameters
    text = advice(settings, everything)
    assert "encoder.train=all encoder.chunk_size=4 sampling.snippet_ratio=1; this trains" in text
    assert propose(settings, 2**20) is None


@pytest.mark.slow
def test_a_budget_below_the_floor_is_refused_with_the_floor():
    with pytest.raises(InputError, match="below the floor of .* MiB .*batch 1, chunk 1"):
        largest(tiny(), 2**20)
    floor = plan(
        tiny("training.batch_size=1", "encoder.chunk_size=1", "sampling.snippet_ratio=0.0625")
    ).rows.total
    with pytest.raises(InputError, match="below the floor"):
        largest(tiny(), floor - 1)
    largest(tiny(), floor)


@pytest.mark.slow
def test_the_chunk_size_is_chosen_from_the_budget():
    for chunk in (1, 3, 7):
        budget = plan(tiny(f"encoder.chunk_size={chunk}")).rows.total
        settings = tiny("encoder.chunk_size=null", f"training.memory={budget}")
        chosen = with_chunk_size(settings).encoder.chunk_size
        assert chosen >= chunk
        assert plan(tiny(f"encoder.chunk_size={chosen}")).rows.total <= budget
    settings = tiny("encoder.chunk_size=null", "training.memory=1GB")
    assert with_chunk_size(settings).encoder.chunk_size == 16
    assert with_chunk_size(settings).encoder.checkpointing is False
    assert with_chunk_size(tiny()) == tiny()


@pytest.mark.slow
def test_blocks_are_checkpointed_where_the_budget_asks_for_it():
    asked = "encoder.checkpointing=null"
    for size in ("encoder.chunk_size=null", "encoder.chunk_size=2"):
        one = "encoder.chunk_size=1" if "null" in size else size
        kept, again = (
            plan(tiny(one, f"encoder.checkpointing={a}")).rows.total for a in ("false", "true")
        )
        assert again < kept
        enough = with_chunk_size(tiny(size, asked, f"training.memory={kept}")).encoder
        less = with_chunk_size(tiny(size, asked, f"training.memory={kept - 1}")).encoder
        assert (enough.checkpointing, less.checkpointing) == (False, True)
        with pytest.raises(InputError, match="is too little: with (one|2) snippets? at a time"):
            with_chunk_size(tiny(size, asked, f"training.memory={again - 1}"))
    with pytest.raises(InputError, match="encoder.checkpointing is null: give it, or a budget"):
        with_chunk_size(tiny(asked))


@pytest.mark.slow
def test_blocks_are_checkpointed_in_a_proposal_where_nothing_is_trained_without():
    small = "detector.max_duration=4", "sampling.proposal_ratio=0.1", "training.batch_size=1"
    settings = tiny(*small, "encoder.train=all")
    least = ("encoder.chunk_size=1", "sampling.snippet_ratio=0.0625")
    kept, again = (
        plan(settings.changed([*least, f"encoder.checkpointing={a}"])).rows.total
        for a in ("false", "true")
    )
    assert not propose(settings, int(1.1 * kept)).checkpointing
    found = propose(settings, (kept + again) // 2)
    assert (found.train, found.chunk, found.checkpointing) == ("all", 1, True)
    assert "encoder.checkpointing=true sampling" in advice(settings, (kept + again) // 2)
    assert again <= found.total <= (kept + again) // 2


@pytest.mark.slow
def test_no_chunk_size_without_a_budget_or_within_too_small_a_one():
    with pytest.raises(InputError, match="training.memory=6GB"):
        with_chunk_size(tiny("encoder.chunk_size=null"))
    with pytest.raises(InputError, match="too little: with one snippet at a time"):
        with_chunk_size(tiny("encoder.chunk_size=null", "training.memory=1MB"))


def test_amounts_of_memory_are_read():
    assert tiny("training.memory=6GB").training.memory == 6 * 10**9
    assert tiny("training.memory=1.5 GiB").training.memory == 3 * 2**29
    for wrong in ("much", "", "-1GB", "0"):
        with pytest.raises(InputError, match="training.memory = .* does not fit"):
            tiny(f"training.memory={wrong}")


def test_the_command_prints_predicted_and_measured(tmp_path):
    picture = tmp_path / "memory.png"
    words = ["plan", "e2e_stickfigures", *SMALL, "--memory", "1GB", "--measure"]
    result = CliRunner().invoke(app, [*words, "--picture", str(picture)], catch_exceptions=False)
    for text in ("predicted MiB", "measured MiB", "total per video", "batch         up to"):
        assert text in result.output
    assert picture.stat().st_size > 1000
    assert "measured" not in memory_table(plan(tiny()))


def test_a_second_belongs_to_the_innermost_part(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: now[0])

    class Work:
        def outer(self):
            now[0] += 1
            self.inner()
            now[0] += 2

        def inner(self):
            now[0] += 4

    work = Work()
    clock = profiling.PartClock(torch.device("cpu"))
    with clock.during(work, "outer", "backward"), clock.during(work, "inner", "pass_3"):
        now[0] += 8
        work.outer()
        work.inner()
    taken = {name: seconds for name, seconds in clock.note().items() if seconds}
    assert taken == {"other": 8, "backward": 3, "pass_3": 8}
    clock.restart()
    assert sum(clock.note().values()) == 0


def test_a_profile_has_every_part_of_a_step():
    always = {"pass_1", "forward", "backward", "pass_3", "update", "other"}
    found = {name for name, seconds in profiling.profile_step(tiny(), 1).items() if seconds}
    assert found == always
    banked = profiling.profile_step(tiny("sampling.others=bank", "encoder.train=head"), 1)
    assert {name for name, seconds in banked.items() if seconds} == always | {"bank", "frozen"}
    features = profiling.profile_step(tiny("data.features=nowhere"), 1)
    assert {name for name, seconds in features.items() if seconds} == always - {"pass_1", "pass_3"}


def test_the_command_times_a_step(tmp_path):
    picture = tmp_path / "seconds.png"
    words = ["plan", "e2e_stickfigures", *SMALL, "--profile"]
    result = CliRunner().invoke(app, [*words, "--picture", str(picture)], catch_exceptions=False)
    for text in ("seconds", "pass 3, with gradient", "100.0%", "loading was not timed: "):
        assert text in result.output
    assert picture.stat().st_size > 1000
    with pytest.raises(InputError, match="leave --memory, --measure and --json out"):
        CliRunner().invoke(app, [*words, "--memory", "1GB"], catch_exceptions=False)


def test_a_profile_times_loading_where_the_videos_are(tmp_path):
    make_dataset(tmp_path, Size(2, 1, longest=31, pixels=32), workers=1, progress=False)
    settings = placed(tiny(), tmp_path)
    text = profiling.explain_time(settings)
    assert "loading a step takes one process" in text
    assert "the step waits for it (data.workers=0)" in text
    assert "\nloading " in text
    text = profiling.explain_time(settings.changed(["data.workers=2"]))
    assert "2 processes load beside the step, in " in text
    assert "\nloading  " not in text


def test_live_tensors_count_storages_until_they_are_freed():
    x = torch.zeros(100)
    with LiveTensors([x]) as live:
        assert live.live_bytes == 400
        y = x + 1
        view = y[:10].view(2, 5)
        assert live.live_bytes == 800
        del y
        assert live.live_bytes == 800  # the view holds it
        del view
        assert live.live_bytes == 400
        (x * 2).exp()
    assert live.peak_bytes == 1200


def test_a_measured_module_is_left_as_it_was():
    encoder = SequentialEncoder(tiny_encoder(pretrained=False), 2)
    frames = torch.zeros(1, 4, 3, 8, 16, 16, dtype=torch.uint8)
    with pytest.raises(TypeError, match="uint8"), measure(encoder, None, frames):
        encoder(frames.float())
    assert not {"first_pass", "third_pass", "encode"} & set(vars(encoder))


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [None, 1])
def test_the_peak_grows_with_the_length_only_by_frames_features_and_prefix(frozen):
    encoder = SequentialEncoder(freeze(tiny_encoder(pretrained=False), frozen), 4, ratio=0.3)
    rows = {}
    for length in (32, 64, 256, 1024):
        video = torch.randint(0, 256, (1, length, 3, 4, 16, 16), dtype=torch.uint8)
        encoder(video).square().sum().backward()
        with measure(encoder, None, video) as measured:
            encoder(video).square().sum().backward()
        encoder.zero_grad()
        rows[length] = measured.rows
    feature = 48 * 4
    for (shorter, less), (longer, more) in itertools.pairwise(rows.items()):
        assert more.inputs / less.inputs == longer / shorter
        # At most five sets of features: in a list and in order, their gradient and its copies.
        beyond = max(more.pass_1, more.pass_3) - max(less.pass_1, less.pass_3)
        assert 0 <= beyond <= 5 * feature * (longer - shorter)
    assert isinstance(rows[32], StepMemory)


def test_on_a_gpu_each_pass_is_what_torch_allocated(monkeypatch):
    peaks = iter([30, 50, 20])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: next(peaks))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    passes = _Passes(*gpu_memory(torch.device("cuda")))
    passes.begin("pass_1")
    passes.end()
    passes.end()
    assert passes.peaks == {"pass_2": 30, "pass_1": 50}
