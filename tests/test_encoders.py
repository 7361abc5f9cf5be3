"""Encoders: published numbers, frozen parts, the prefix/suffix split, weights in and out."""

import numpy as np
import pytest
import torch
from parity import published_weights

from etadlite.base.errors import InputError
from etadlite.base.weights import load_exactly, load_weights, save_weights
from etadlite.encoders import (
    R2Plus1D,
    TinyR2Plus1D,
    freeze,
    from_tsp,
    tiny_encoder,
)
from etadlite.encoders.speed import Variant, gradient_agrees
from etadlite.encoders.staged import PIXEL_MEAN, PIXEL_STD, TemporalConv
from etadlite.encoders.tiny import TINY_WEIGHTS
from etadlite.stickfigures.dataset import studio_clips


def frames(n: int, f: int = 8, size: int = 48) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, f, size, size), dtype=torch.uint8)


@pytest.fixture(scope="module")
def published(shared):
    """TSP's R(2+1)D-34 state dict, filled by the fixtures' own rule."""
    return published_weights(shared, "tsp_r2plus1d34_keys.json")


@pytest.fixture(scope="module")
def small():
    """A depth-18 encoder whose batch norms have statistics worth moving."""
    torch.manual_seed(0)
    return R2Plus1D(18)


@pytest.mark.slow
def test_tsp_encoder_equals_the_published_forward(shared, published):
    fixture = np.load(shared / "parity" / "tsp_r2plus1d34_forward.npz")
    draw = np.random.RandomState(int(fixture["frames_seed"]))
    snippets = torch.from_numpy(draw.randint(0, 256, (2, 3, 16, 112, 112)).astype("uint8"))
    encoder = from_tsp(published)
    with torch.no_grad():
        feature = encoder(snippets).numpy()
    assert feature.shape == (2, encoder.channels)
    np.testing.assert_allclose(feature, fixture["feature"], rtol=1e-3, atol=1e-5)


def test_keys_and_shapes_equal_the_published(published):
    own = R2Plus1D(34).state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in published.items()}


@pytest.mark.parametrize("prefix", ["", "features.", "module.features."])
@pytest.mark.parametrize("outer", [False, True])
def test_from_tsp_reads_every_packing(small, prefix, outer):
    packed = {prefix + k: v for k, v in small.state_dict().items()}
    head = prefix.replace("features.", "")
    packed |= {head + "fc1.weight": torch.zeros(7, 512), head + "fc2.bias": torch.zeros(2)}
    encoder = from_tsp({"model": packed, "epoch": 5} if outer else packed)
    assert len(encoder.layer3) == 2
    assert not encoder.training
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, small.state_dict()[key]), key


def test_from_tsp_tells_torchvisions_mid_planes():
    encoder = from_tsp(R2Plus1D(18, own_planes=False).state_dict())
    assert encoder.layer2[0].conv2[0][0].out_channels == 230
    assert encoder.stem[1].eps == 1e-5
    assert R2Plus1D(18).layer2[0].conv2[0][0].out_channels == 288
    assert R2Plus1D(18).stem[1].eps == 1e-3


def test_from_tsp_lists_what_does_not_fit(small):
    broken = dict(small.state_dict())
    del broken["stem.0.weight"]
    broken["extra.weight"] = torch.zeros(1)
    broken["layer4.1.conv2.1.bias"] = torch.zeros(3)
    with pytest.raises(InputError) as caught:
        from_tsp(broken)
    message = str(caught.value)
    assert "1 keys missing (stem.0.weight)" in message
    assert "1 keys left over (extra.weight)" in message
    assert "layer4.1.conv2.1.bias (3,) instead of (512,)" in message


def test_from_tsp_refuses_a_foreign_dict():
    with pytest.raises(InputError, match="missing"):
        from_tsp({"weight": torch.zeros(1)})


def test_normalise_is_mean_and_deviation_of_the_pixels():
    snippets = frames(2, 3, 5)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    expected = (snippets.float() - mean) / std
    encoder = TinyR2Plus1D()
    torch.testing.assert_close(encoder.normalise(snippets), expected, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder.normalise(snippets).dtype == torch.bfloat16
        assert encoder(frames(1)).dtype == torch.float32
    with pytest.raises(TypeError, match="uint8"):
        encoder(expected)


def test_frozen_stages_get_no_gradient_and_statistics_stand_still(small):
    encoder = freeze(small, 2).train()
    before = {k: v.clone() for k, v in encoder.named_buffers()}
    encoder(frames(2, 4, 16)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        frozen = name.split(".")[0] in ("stem", "layer1", "layer2")
        assert (parameter.grad is None) == frozen, name
    for name, value in encoder.named_buffers():
        assert torch.equal(value, before[name]), name
    freeze(encoder, None)
    assert all(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("stages", [None, 0, 2, 4])
def test_suffix_of_prefix_is_the_whole(small, stages):
    snippets = frames(2, 4, 16)
    whole = freeze(small, None)(snippets)
    freeze(small, stages)
    prefix = small.encode_prefix(snippets)
    assert not prefix.requires_grad
    assert torch.equal(small.encode_suffix(prefix), whole)
    assert torch.equal(small(snippets), whole)
    if stages is None:
        assert prefix is snippets


def test_freeze_refuses_stages_that_do_not_exist(small):
    with pytest.raises(ValueError, match="0 to 4"):
        freeze(small, 5)


def test_chunks_equal_the_whole_in_train_mode(small):
    snippets = frames(4, 4, 16)
    with torch.no_grad():
        whole = small.train()(snippets)
        chunks = torch.cat([small(chunk) for chunk in snippets.split(2)])
    torch.testing.assert_close(chunks, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 4])
def test_tiny_chunks_equal_the_whole_to_float64s_rounding(chunk):
    # Not bit for bit: the convolution library picks its blocking by the batch size.
    encoder, snippets = TinyR2Plus1D().double().train(), frames(9, 8, 24)
    with torch.no_grad():
        whole = encoder(snippets)
        chunks = torch.cat([encoder(part) for part in snippets.split(chunk)])
    torch.testing.assert_close(chunks, whole, rtol=0, atol=1e-12)


def test_tiny_feature_is_standardised_by_its_statistics():
    encoder, snippets = TinyR2Plus1D(), frames(3)
    plain = encoder(snippets)
    encoder.feature_mean.fill_(2.0)
    encoder.feature_std.fill_(4.0)
    torch.testing.assert_close(encoder(snippets), (plain - 2) / 4)
    assert plain.shape == (3, encoder.channels)


def test_weights_round_trip_with_metadata(tmp_path):
    path = tmp_path / "folder" / "w.safetensors"
    module = torch.nn.Conv3d(2, 3, 1).to(memory_format=torch.channels_last_3d)
    save_weights(path, module, {"seed": "7"})
    state_dict, metadata = load_weights(path)
    assert metadata == {"seed": "7"}
    assert torch.equal(state_dict["weight"], module.weight)
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]


def test_load_weights_refuses_absent_broken_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match="no such"):
        load_weights(tmp_path / "absent.safetensors")
    whole, cut, foreign = (tmp_path / name for name in ("whole", "cut", "foreign"))
    save_weights(whole, TinyR2Plus1D(), {})
    cut.write_bytes(whole.read_bytes()[:-100])
    torch.save({"a": torch.zeros(1)}, foreign)
    for path in (cut, foreign):
        with pytest.raises(InputError, match="not a complete safetensors"):
            load_weights(path)


def test_shipped_weights_load_and_are_small():
    assert TINY_WEIGHTS.stat().st_size < 1_000_000
    encoder = tiny_encoder(pretrained=True)
    assert not encoder.training
    clips, _ = studio_clips(48, 8, 48, seed=99)
    with torch.no_grad():
        features = encoder(torch.from_numpy(clips))
    # Standardised with the statistics of other studio clips; a channel that is always 0 stays 0.
    assert features.isfinite().all()
    assert features.mean().abs() < 0.3
    assert 0.6 < features.std() < 1.4
    with pytest.raises(InputError, match="do not fit"):
        load_exactly(TinyR2Plus1D((8, 8, 8, 8)), encoder.state_dict(), "these weights")


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_over_few_frames_pads_by_itself(frames, stride):
    theirs = torch.nn.Conv3d(3, 4, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)
    ours = TemporalConv(3, 4, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, frames, 4, 4)
    torch.testing.assert_close(ours(x), theirs(x))


def test_the_half_precision_gradient_of_the_last_stage_is_right():
    torch.manual_seed(0)
    encoder = freeze(R2Plus1D(18), 3)  # its last stage sees 2 of 16 frames
    frames = torch.randint(0, 256, (1, 3, 16, 32, 32), dtype=torch.uint8)
    assert gradient_agrees(encoder, frames, Variant("bf16"))
    assert gradient_agrees(encoder, frames, Variant("bf16", channels_last=True))


def test_a_gradient_that_is_wrong_in_half_precision_is_noticed():
    class Wrong(torch.nn.Linear):
        channels = 2

        def forward(self, frames):
            values = frames.float().flatten(1)[:, :4] / 255
            out = super().forward(values)
            return out.flip(1) if torch.is_autocast_enabled("cpu") else out

    frames = torch.randint(0, 256, (3, 3, 1, 2, 2), dtype=torch.uint8)
    assert not gradient_agrees(Wrong(4, 2), frames, Variant("bf16"))
    assert gradient_agrees(Wrong(4, 2), frames, Variant("fp32"))
