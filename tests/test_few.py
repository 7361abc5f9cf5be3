"""Training few parameters of an encoder: which they are, exact gradients, small checkpoints."""

import copy
import json
import os
import signal

import pytest
import torch
from conftest import assert_engine_is_plain_back_propagation
from test_resume import at_step, left
from test_sequential import Small, gradients, scaled
from torch import nn

from etadlite.base.errors import InputError, StoppedError
from etadlite.base.weights import load_weights, save_weights
from etadlite.config import EncoderSettings
from etadlite.encoders import StagedEncoder, freeze, tiny_encoder
from etadlite.encoders.build import build_encoder, settle_speed
from etadlite.encoders.few import Bottleneck, LowRank, add_adapters, merge_adapters, train_few
from etadlite.encoders.speed import checkpoint_blocks
from etadlite.inference.predict import predict
from etadlite.model.checkpoint import checkpoint_settings, load_checkpoint
from etadlite.model.sequential_encoder import SequentialEncoder
from etadlite.presets import preset
from etadlite.runs.run import run_training
from etadlite.training.loop import prepare
from etadlite.training.recorder import Recorder

CPU = torch.device("cpu")


def trained(encoder):
    return {name for name, p in encoder.named_parameters() if p.requires_grad}


def few(encoder, **settings):
    name = settings.pop("name", "tiny")
    train_few(encoder, EncoderSettings(name=name, **settings), pretrained=False)
    return encoder


def disturb(encoder):
    """Give the adapters an effect, as if they had been trained."""
    for module in encoder.modules():
        if isinstance(module, LowRank | Bottleneck):
            nn.init.normal_(module.up.weight, std=0.3)


# What is trained


def test_each_choice_leaves_its_parameters():
    whole = trained(freeze(Small(1), 1))
    head = few(freeze(Small(1), 1), train="head")
    assert trained(head) == {name for name in whole if name.startswith("layer4.")}
    assert head.prefix_length() == 4  # so that the prefix is kept up to the last stage
    norms = few(freeze(Small(1), 1), train="norms")
    assert trained(norms) == {f"layer{i}.1.{p}" for i in (2, 3, 4) for p in ("weight", "bias")}
    assert norms.prefix_length() == 2
    adapters = few(freeze(Small(1), 1), train="adapters", adapter_rank=2)
    parts = ("down", "up")
    assert trained(adapters) == {f"layer{i}.0.{p}.weight" for i in (2, 3, 4) for p in parts}
    some = few(freeze(Small(1), 1), train="adapters", adapter_layers=("layer3", "layer4.0"))
    assert trained(some) == {f"layer{i}.0.{p}.weight" for i in (3, 4) for p in parts}


def test_the_head_is_the_last_stage_with_weights():
    class Net(StagedEncoder):
        def __init__(self):
            super().__init__({"a": nn.Conv3d(3, 4, 1), "b": nn.Conv3d(4, 4, 1), "n": Norm()}, 4)

    class Norm(nn.LayerNorm):
        def __init__(self):
            super().__init__(4)

        def forward(self, x):
            return super().forward(x.flatten(2).mT).mT

    assert trained(few(Net(), train="head")) == {"b.weight", "b.bias", "n.weight", "n.bias"}


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("layer1", 'no linear or convolution layer "layer1" .*; did you mean "layer[234]"'),
        ("attention", 'layer "attention" after the frozen stages; there are layer2.0, layer3.0'),
        ("layer2.1", 'no linear or convolution layer "layer2.1"'),  # it is a norm
    ],
)
def test_adapters_on_a_layer_that_is_not_there_are_refused(layer, words):
    with pytest.raises(InputError, match=words):
        few(freeze(Small(1), 1), train="adapters", adapter_layers=(layer,))


def test_nothing_to_train_is_refused():
    encoder = freeze(Small(4), 4)
    for train in ("head", "norms", "adapters"):
        with pytest.raises(InputError, match=f"encoder.train={train} leaves nothing to train"):
            few(encoder, train=train, frozen_stages=4)
    with pytest.raises(InputError, match="keeps random weights of r2plus1d_18, which no checkp"):
        build_encoder(EncoderSettings(name="r2plus1d_18", train="norms"))


def test_bf16_is_for_weights_that_are_not_trained_and_for_steps_in_bf16():
    with pytest.raises(InputError, match="needs encoder.train=adapters, head or norms"):
        build_encoder(EncoderSettings(name="tiny", frozen_dtype="bf16"))
    rounded = ("encoder.train=norms", "encoder.frozen_dtype=bf16")
    with pytest.raises(InputError, match="computes in bf16, but training.precision is fp32"):
        settle_speed(preset("e2e_stickfigures", [*rounded, "training.precision=fp32"]), CPU)
    settled = settle_speed(preset("e2e_stickfigures", rounded), CPU)
    assert settled.training.precision == "bf16"


# Adapters


def convolution(**how):
    return nn.Conv3d(4, 6, 3, **how), torch.randn(2, 4, 7, 7, 7)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(5, 7), torch.randn(3, 2, 5)),
        (nn.Conv1d(4, 6, 3, padding="same", dilation=2, bias=False), torch.randn(2, 4, 9)),
        (nn.Conv2d(4, 6, (1, 3), stride=2, padding_mode="circular"), torch.randn(2, 4, 7, 7)),
        convolution(stride=(2, 1, 2), padding=(1, 0, 2)),
    ],
)
def test_an_adapter_is_a_product_added_to_the_weights(layer, x):
    layer, x = layer.double(), x.double()
    adapted = LowRank(copy.deepcopy(layer), 3)
    torch.testing.assert_close(adapted(x), layer(x), rtol=0, atol=0)  # no effect at first
    nn.init.normal_(adapted.up.weight)
    down, up = (p.weight.detach().clone().requires_grad_() for p in (adapted.down, adapted.up))
    product = (up.flatten(1) @ down.flatten(1)).view_as(layer.weight)
    given = {"weight": layer.weight.detach() + product}
    expected = torch.func.functional_call(layer, given, (x,))
    torch.testing.assert_close(adapted(x), expected)
    torch.testing.assert_close(adapted.weight, given["weight"])
    expected.square().sum().backward()
    adapted(x).square().sum().backward()
    torch.testing.assert_close(adapted.down.weight.grad, down.grad)
    torch.testing.assert_close(adapted.up.weight.grad, up.grad)
    assert adapted.base.weight.grad is None


def test_a_layer_whose_weights_go_to_a_function_is_adapted_too():
    class Function(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(6, 6)

        def forward(self, x):
            x = x.flatten(2).mean(-1)
            return nn.functional.linear(x, self.project.weight, self.project.bias)

    encoder = StagedEncoder({"stem": nn.Conv3d(3, 6, 1), "head": Function()}, 6).double()
    behind = copy.deepcopy(encoder)
    add_adapters(behind, 2, ["project"], Bottleneck)
    with pytest.raises(InputError, match="hands the weights of a layer to a function"):
        behind(torch.zeros(1, 3, 2, 4, 4).byte())
    add_adapters(encoder, 2, ["project"])
    disturb(encoder)
    frames = torch.randint(0, 256, (3, 3, 2, 4, 4)).byte()
    features = encoder(frames)
    features.square().sum().backward()
    assert all(g.abs().sum() > 0 for g in gradients(encoder))
    merge_adapters(encoder)
    torch.testing.assert_close(encoder(frames), features)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(5, 7), torch.randn(3, 2, 5)),
        (nn.Conv2d(4, 6, (1, 3), stride=2), torch.randn(2, 4, 7, 7)),
        convolution(stride=(2, 1, 2)),
    ],
)
def test_a_bottleneck_stands_behind_its_layer(layer, x):
    layer, x = layer.double(), x.double()
    adapted = Bottleneck(copy.deepcopy(layer), 3)
    torch.testing.assert_close(adapted(x), layer(x), rtol=0, atol=0)  # no effect at first
    nn.init.normal_(adapted.up.weight)
    last = isinstance(layer, nn.Linear)  # the channels are the last axis
    y = layer(x) if last else layer(x).movedim(1, -1)
    a, b = (part.weight.flatten(1) for part in (adapted.down, adapted.up))
    expected = y + (y @ a.T + adapted.down.bias).relu() @ b.T
    torch.testing.assert_close(adapted(x), expected if last else expected.movedim(-1, 1))
    adapted(x).sum().backward()
    assert adapted.base.weight.grad is None
    assert adapted.down.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("train", ["norms", "head", "adapters"])
@pytest.mark.parametrize("frozen", [None, 1])
def test_the_engine_is_plain_back_propagation_whatever_is_trained(train, frozen):
    encoder = freeze(tiny_encoder(pretrained=False), frozen)
    few(encoder, train=train, adapter_rank=2).double()
    disturb(encoder)
    frames = torch.randint(0, 256, (1, 5, 3, 8, 16, 16), dtype=torch.uint8)
    assert_engine_is_plain_back_propagation(encoder, frames, [(2, "device"), (9, "nothing")])


def test_merged_adapters_give_the_same_features_from_the_plain_network():
    encoder = tiny_encoder(pretrained=False).double()
    names = encoder.state_dict().keys()
    add_adapters(encoder, 4)
    disturb(encoder)
    frames = torch.randint(0, 256, (2, 3, 8, 16, 16), dtype=torch.uint8)
    features = encoder(frames).detach()
    merge_adapters(encoder)
    assert encoder.state_dict().keys() == names
    assert scaled(encoder(frames).detach(), features) < 1e-10


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_frozen_weights_in_bf16_leave_what_is_trained_in_fp32(kind):
    whole = few(tiny_encoder(), train="adapters", adapter_kind=kind)
    disturb(whole)
    half = few(tiny_encoder(), train="adapters", adapter_kind=kind, frozen_dtype="bf16")
    half.load_state_dict(whole.state_dict())
    kinds = {name: p.dtype for name, p in half.named_parameters() if p.ndim > 1}
    assert {kinds[name] for name in kinds if "base" in name} == {torch.bfloat16}
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
    frames = torch.randint(0, 256, (2, 3, 8, 24, 24), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = whole(frames), half(frames)
    torch.testing.assert_close(one, other, rtol=0, atol=0)  # autocast rounds them anyway
    other.sum().backward()
    assert {p.grad.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
    if kind == "lora":
        layer = half.layer4.downsample[0]
        expected = layer.base.weight.float() + (
            layer.up.weight.flatten(1) @ layer.down.weight.flatten(1)
        ).view_as(layer.base.weight)
    merge_adapters(half)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    if kind == "lora":  # not rounded: the sum of what was trained and of what was rounded
        torch.testing.assert_close(half.layer4.downsample[0].weight, expected)
    else:
        assert any(isinstance(module, Bottleneck) for module in half.modules())


# Checkpointing


class Drops(nn.Module):
    """A block that draws random numbers and counts its calls."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.mix, self.drop = nn.Conv3d(6, 6, 1), nn.Dropout(0.3)

    def forward(self, x):
        self.calls += 1
        return x + self.drop(self.mix(x)).relu()


@pytest.mark.parametrize("frozen", [None, 0, 1])
def test_checkpointed_blocks_have_the_same_gradient_to_the_bit(frozen):
    stages = {"stem": nn.Conv3d(3, 6, 1), "a": nn.Sequential(Drops(), Drops()), "b": Drops()}
    plain = freeze(StagedEncoder(stages, 6), frozen).double()
    again = copy.deepcopy(plain)
    checkpoint_blocks(again)
    frames = torch.randint(0, 256, (1, 6, 3, 2, 4, 4), dtype=torch.uint8)
    found = []
    for encoder in (plain, again):
        torch.manual_seed(3)
        SequentialEncoder(encoder, 2, ratio=0.5)(frames).square().sum().backward()
        found.append(gradients(encoder))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert again.b.calls > plain.b.calls
    assert (again.a[0].calls > plain.a[0].calls) is (frozen != 1)


def test_the_engine_with_checkpointed_blocks_is_plain_back_propagation():
    encoder = freeze(tiny_encoder(pretrained=False), 1).double()
    checkpoint_blocks(encoder)
    frames = torch.randint(0, 256, (1, 5, 3, 8, 16, 16), dtype=torch.uint8)
    assert_engine_is_plain_back_propagation(encoder, frames, [(2, "device"), (9, "nothing")])


# Checkpoints and runs


def e2e(tiny, *changes):
    small = ("data.cache=null", "detector.max_duration=4", "training.batch_size=1")
    return preset("e2e_stickfigures", [*tiny.assignments, *small, *changes])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["adapters", "norms", "adapters kind", "adapters rounded"])
def test_a_checkpoint_holds_what_was_trained_and_names_the_rest(tiny, tmp_path, how):
    train, _, more = how.partition(" ")
    more = {"kind": "encoder.adapter_kind=bottleneck", "rounded": "encoder.frozen_dtype=bf16"}.get(
        more, "encoder.frozen_dtype=fp32"
    )
    chosen = e2e(tiny, f"encoder.train={train}", "encoder.adapter_rank=2", more)
    run_training(chosen, tmp_path / "run", progress=False)
    path = tmp_path / "run" / "checkpoint.safetensors"
    weights, metadata = load_weights(path)
    training, _ = prepare(chosen)
    kept = {f"encoder.{name}" for name in trained(training.system.encoder)}
    assert {name for name in weights if name.startswith("encoder.")} == kept
    assert len(metadata["base"]) == 64
    # It is tested, and predicts, whatever the settings say of `encoder.train`.
    system = load_checkpoint(path, e2e(tiny))
    assert not any(isinstance(module, LowRank) for module in system.modules())
    assert {p.dtype for p in system.parameters()} == {torch.float32}
    video = next((tiny.data / "videos").glob("validation*"))
    ours = predict(video, system, checkpoint_settings(path))
    theirs = json.loads((tmp_path / "run" / "predictions.json").read_text())["results"]
    (expected,) = theirs.values()
    scores = [float(detection["score"]) for detection in expected]
    assert [float(found["score"]) for found in ours] == pytest.approx(
        scores,
        abs=2e-2 if "rounded" in how else 1e-3,  # bf16 rounds a sum of weights and a sum of outputs
    )
    torch.manual_seed(5)
    save_weights(tmp_path / "other.safetensors", tiny_encoder(pretrained=False), {})
    other = e2e(tiny, f"encoder.weights={tmp_path / 'other.safetensors'}")
    with pytest.raises(InputError, match="trained beside other weights than those that encoder.w"):
        load_checkpoint(path, other)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "more",
    [
        ("sampling.others=bank",),
        ("encoder.frozen_dtype=bf16", "encoder.adapter_kind=bottleneck"),
        ("encoder.frozen_dtype=bf16", "encoder.checkpointing=true"),
    ],
)
def test_a_stopped_run_with_adapters_goes_on_to_the_same_bits(tiny, tmp_path, monkeypatch, more):
    changes = ("encoder.train=adapters", "sampling.snippet_ratio=0.3", *more)
    chosen = e2e(tiny, *changes, "training.epochs=2")
    run_training(chosen, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "log", at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(StoppedError):
            run_training(chosen, tmp_path / "stopped", progress=False)
    run_training(chosen, tmp_path / "stopped", resume=True, progress=False)
    assert left(tmp_path / "stopped") == left(tmp_path / "whole")
