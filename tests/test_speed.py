"""The choice of number format and layout: by measurement, and only where it pays."""

import time

import pytest
import torch
from torch import nn

from etadlite.encoders import speed, tiny_encoder
from etadlite.encoders.build import build_encoder, settle_speed
from etadlite.encoders.speed import VARIANTS, fastest, seconds_per_snippet, use_layout
from etadlite.encoders.staged import StagedEncoder, freeze
from etadlite.presets import preset

PLAIN, LAST, HALF = VARIANTS
CPU = torch.device("cpu")


def snippet():
    return torch.randint(0, 256, (1, 3, 2, 4, 4), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ((1.0, 0.9, 0.4), HALF),
        ((1.0, 0.7, 0.9), LAST),
        ((1.0, 0.9, 0.85), PLAIN),  # not clearly faster
        ((1.0, 1.2, 9.0), PLAIN),
    ],
)
def test_a_variant_is_chosen_only_where_it_is_clearly_faster(seconds, chosen):
    assert fastest(dict(zip(VARIANTS, seconds, strict=True))) == chosen


class Slow(nn.Conv3d):
    """A convolution whose backward pass waits in bf16."""

    def forward(self, x):
        y = super().forward(x)
        if y.dtype == torch.bfloat16 and y.requires_grad:
            y.register_hook(lambda gradient: time.sleep(0.02))
        return y


def encoder_of(convolution):
    return StagedEncoder({"stem": convolution}, 4)


def test_every_variant_is_measured_in_its_precision_and_layout():
    seen = set()
    encoder = encoder_of(nn.Conv3d(3, 4, (1, 2, 2)))

    def look(module, args, out):
        last = module.weight.is_contiguous(memory_format=torch.channels_last_3d)
        plain = module.weight.is_contiguous()
        seen.add((out.dtype, last and not plain, out.requires_grad))

    encoder.stem.register_forward_hook(look)
    kinds = {(torch.float32, False), (torch.float32, True), (torch.bfloat16, True)}
    for ratio in (0.0, 0.3):
        seen.clear()
        seconds = seconds_per_snippet(encoder, snippet(), ratio, repeats=1)
        assert seen == {(*kind, grad) for kind in kinds for grad in {False, ratio > 0}}
        assert all(0 < value < 60 for value in seconds.values())


def test_a_slow_backward_pass_counts_as_often_as_snippets_are_sampled():
    encoder = encoder_of(Slow(3, 4, (1, 2, 2)))
    for ratio, slow in ((0.0, False), (1.0, True)):
        seconds = seconds_per_snippet(encoder, snippet(), ratio)
        assert (seconds[HALF] > 0.02) is slow
    freeze(encoder, 0)  # the third pass has nothing to do
    assert seconds_per_snippet(encoder, snippet(), 1.0)[HALF] < 0.02


def test_auto_is_settled_by_the_measurement(monkeypatch):
    settings = preset("e2e_anet_tsp", ["data.crop=16", "data.frames=2", "encoder.name=r2plus1d_18"])
    monkeypatch.setattr(speed, "gradient_agrees", lambda encoder, frames, variant: True)
    for winner in VARIANTS:

        def measured(encoder, frames, ratio, variants, winner=winner):
            assert frames.shape == (1, 3, 2, 16, 16)
            assert ratio == settings.sampling.snippet_ratio
            return {variant: 0.1 if variant == winner else 1.0 for variant in variants}

        monkeypatch.setattr(speed, "seconds_per_snippet", measured)
        settled = settle_speed(settings, CPU)
        assert settled.training.precision == winner.precision
        assert settled.encoder.channels_last is winner.channels_last
        assert settle_speed(settled, CPU) == settled


def test_half_precision_is_refused_where_its_gradient_is_wrong(monkeypatch):
    settings = preset("e2e_anet_tsp", ["data.crop=16", "data.frames=2", "encoder.name=r2plus1d_18"])
    seconds = dict(zip(VARIANTS, (1.0, 0.5, 0.2), strict=True))
    monkeypatch.setattr(speed, "seconds_per_snippet", lambda *_: seconds)
    monkeypatch.setattr(speed, "gradient_agrees", lambda encoder, frames, variant: False)
    settled = settle_speed(settings, CPU)
    assert settled.training.precision == "fp32"
    assert settled.encoder.channels_last is True


def test_what_is_asked_for_by_name_stays_and_the_tiny_encoder_is_not_measured(monkeypatch):
    monkeypatch.setattr(speed, "seconds_per_snippet", None)  # calling it would fail
    tiny = settle_speed(preset("e2e_stickfigures"), CPU)
    assert tiny.training.precision == "fp32"
    assert tiny.encoder == preset("e2e_stickfigures").encoder
    named = preset("e2e_anet_tsp", ["training.precision=bf16", "encoder.channels_last=false"])
    assert settle_speed(named, CPU) == named


def test_the_layout_setting_reaches_the_weights():
    settings = preset("e2e_anet_tsp", ["encoder.name=r2plus1d_18"]).encoder
    for layout in (True, False):
        encoder = build_encoder(
            settings.model_copy(update={"channels_last": layout}), pretrained=False
        )
        weight = encoder.layer1[0].conv1[0][0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last_3d) == layout
    frames = torch.randint(0, 256, (2, 3, 8, 24, 24), dtype=torch.uint8)
    encoder = tiny_encoder()
    expected = encoder(frames)
    use_layout(encoder, False)
    torch.testing.assert_close(encoder(frames), expected, rtol=1e-4, atol=1e-4)
