"""`etadlite convert`: every published packing in, the same numbers out, nothing executed."""

import argparse
import collections
import hashlib
import json
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import fixture, published_weights
from torch import nn
from torchvision import models

from etadlite.base.errors import InputError
from etadlite.base.weights import load_exactly, load_weights
from etadlite.cli import main
from etadlite.config import DataSettings, EncoderSettings, Settings
from etadlite.detector import ETADDetector
from etadlite.encoders import R2Plus1D, from_tsp
from etadlite.encoders.build import build_encoder
from etadlite.model.checkpoint import load_checkpoint
from etadlite.model.system import System
from etadlite.prepare.convert import Published, convert, read_published
from etadlite.presets import preset


class SmallEncoder(nn.Module):
    """Stands in for R(2+1)D-34, whose 64 million weights take long to write."""

    channels = 512

    def __init__(self, depth=18, own_planes=True):
        super().__init__()
        self.stem = nn.ModuleList([nn.Conv3d(3, 2, 1), nn.BatchNorm3d(2, eps=1e-3)])
        self.layer3 = nn.ModuleList([nn.Linear(1, 1) for _ in range(2)])


@pytest.fixture
def small_encoder(monkeypatch):
    """The stand-in takes R(2+1)D's place wherever an encoder is built from published weights."""
    SmallEncoder.blocks = R2Plus1D.blocks
    monkeypatch.setattr("etadlite.encoders.r2plus1d.R2Plus1D", SmallEncoder)
    monkeypatch.setattr("etadlite.prepare.convert.R2Plus1D", SmallEncoder)
    return SmallEncoder()


@pytest.fixture(scope="module")
def published(shared):
    """Layout -> published names and weights of a detector."""
    keys = {"released": "etad_detector_keys.json", "opentad": "opentad_anet_tsp_keys.json"}
    return {layout: published_weights(shared, file) for layout, file in keys.items()}


def prefixed(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


def saved(path, checkpoint):
    torch.save(checkpoint, path)
    return path


def load_converted(path, encoder=R2Plus1D):
    """Builds what `convert` wrote, by its metadata."""
    weights, metadata = load_weights(path)
    detector, sizes = (json.loads(metadata.get(part, "null")) for part in ("detector", "encoder"))
    published = Published(
        metadata["family"],
        detector and ETADDetector(**detector).eval(),
        sizes and encoder(**sizes).eval(),
    )
    load_exactly(published.module(), weights, str(path))
    return published


def compare(detector, shared, layout):
    """The forward of the fixture of a layout."""
    if layout == "released":
        expected = fixture(shared, "etad_detector_forward.npz")
        feature = torch.from_numpy(expected["feature"])
        proposals = 128 * torch.from_numpy(expected["anchors"])
        wanted = expected["tem"]
    else:
        expected = fixture(shared, "opentad_anet_tsp_forward.npz")
        draw = np.random.RandomState(expected["seed"]).standard_normal(expected["feature_shape"])
        feature = torch.from_numpy(draw.astype("float32"))
        proposals = torch.tensor([[[0.0, 1.0]]])
        wanted = expected["tem_score"]
    with torch.inference_mode():
        output = detector(feature, proposals)
    torch.testing.assert_close(output.boundaries, torch.from_numpy(wanted), atol=1e-4, rtol=1e-4)
    if layout == "released":
        refined, iou = (part.numpy() for part in output.refined())
        np.testing.assert_allclose(refined / 128, expected["refined_anchors"], atol=1e-4)
        np.testing.assert_allclose(iou, expected["mean_iou"], atol=1e-4)


PACKINGS = {
    "released": lambda w: {"epoch": 5, "state_dict": prefixed("base_detector.", w)},
    "released parallel": lambda w: {"state_dict": prefixed("module.base_detector.", w)},
    "opentad": lambda w: {"epoch": 5, "state_dict": w},
    "opentad parallel": lambda w: {"state_dict": prefixed("module.", w)},
    "opentad averaged": lambda w: {
        "state_dict": {name: torch.zeros_like(value) for name, value in w.items()},
        "state_dict_ema": prefixed("module.", w),
    },
    "opentad bare": lambda w: w,
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_converted_detector_computes_what_the_published_one_does(
    shared, published, tmp_path, packing
):
    layout = packing.split()[0]
    file = saved(tmp_path / "a.pth", PACKINGS[packing](published[layout]))
    convert(file, tmp_path / "a.safetensors")
    converted = load_converted(tmp_path / "a.safetensors")
    assert converted.family == {"released": "released ETAD", "opentad": "OpenTAD"}[layout]
    assert converted.encoder is None
    compare(converted.detector, shared, layout)
    _, metadata = load_weights(tmp_path / "a.safetensors")
    assert json.loads(metadata["detector"]) == {
        "in_channels": 512,
        "width": 256,
        "layout": layout,
        "roi_size": 24 if layout == "released" else 16,
        "hidden": 512,
        "head": 128,
        "num_stages": 3,
    }


WITH_ENCODER = {
    "released": ("base_detector.", "feature_extractor.model.backbone."),
    "opentad": ("", "backbone.model.backbone."),
}


@pytest.mark.parametrize("layout", WITH_ENCODER)
@pytest.mark.parametrize("parallel", ["", "module."])
def test_a_checkpoint_with_encoder_gives_both(published, tmp_path, small_encoder, layout, parallel):
    detector, prefix = WITH_ENCODER[layout]
    weights = prefixed(detector, published[layout])
    weights |= prefixed(prefix, small_encoder.state_dict())
    file = saved(tmp_path / "a.pth", {"state_dict": prefixed(parallel, weights)})
    convert(file, tmp_path / "a.safetensors")
    converted = load_converted(tmp_path / "a.safetensors", type(small_encoder))
    assert isinstance(converted.detector, ETADDetector)
    for name, value in converted.encoder.state_dict().items():
        assert torch.equal(value, small_encoder.state_dict()[name]), name

    surplus = f"{prefix.split('.')[0]}.surplus"
    broken = weights | {surplus: torch.zeros(1)}
    del broken[prefix + "stem.0.bias"]
    with pytest.raises(InputError) as caught:
        read_published(saved(tmp_path / "b.pth", {"state_dict": prefixed(parallel, broken)}))
    missing = f"1 keys missing ({parallel}{prefix}stem.0.bias)"
    for words in ("b.pth", missing, f"1 keys left over ({parallel}{surplus})"):
        assert words in str(caught.value)


@pytest.mark.slow
def test_a_whole_training_checkpoint_becomes_a_system_that_computes_the_same(shared, tmp_path):
    """The largest that was published: detector and R(2+1)D-34, optimiser and schedule."""
    tsp = published_weights(shared, "tsp_r2plus1d34_keys.json")
    weights = prefixed(
        "module.base_detector.", published_weights(shared, "etad_detector_keys.json")
    ) | prefixed("module.feature_extractor.model.backbone.", tsp)
    some = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(some.parameters())
    some(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4])
    file = saved(
        tmp_path / "epoch_5.pth.tar",
        {
            "epoch": 5,
            "state_dict": weights,
            "optimizer": optimizer.state_dict(),
            "scheduler": schedule.state_dict(),
        },
    )
    convert(file, tmp_path / "etad.safetensors")
    file.unlink()
    settings = Settings(name="x", data=DataSettings(annotations="a.json", videos="videos"))
    system = load_checkpoint(tmp_path / "etad.safetensors", settings).eval()
    encoder = from_tsp(tsp)
    detector = ETADDetector.from_published(weights).eval()
    frames = torch.randint(0, 256, (1, 128, 3, 1, 8, 8), dtype=torch.uint8)
    proposals = torch.tensor([[[3.0, 9.0], [0.0, 128.0]]])
    with torch.inference_mode():
        output = system(frames, proposals)
        expected = detector(encoder(frames[0]).T[None], proposals)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(output.boundaries, expected.boundaries, **close)
    for part, wanted in zip(output.refined(), expected.refined(), strict=True):
        torch.testing.assert_close(part, wanted, **close)


def test_the_names_are_those_of_a_system(published, tmp_path, small_encoder, tiny):
    weights = prefixed("base_detector.", published["released"])
    weights |= prefixed("feature_extractor.model.backbone.", small_encoder.state_dict())
    convert(saved(tmp_path / "a.pth", {"state_dict": weights}), tmp_path / "a.safetensors")
    names = set(load_weights(tmp_path / "a.safetensors")[0])
    settings = preset("e2e_stickfigures", (*tiny.assignments, "detector.classes=[]"))
    system = System(settings, pretrained=False)
    ours = set(system.state_dict())
    assert {n for n in names if n.startswith("detector.")} == {
        n for n in ours if n.startswith("detector.")
    }
    assert "encoder.encoder.stem.0.weight" in names
    assert any(n.startswith("encoder.encoder.stem.0") for n in ours)


def test_a_tsp_file_becomes_weights_of_the_encoder(tmp_path):
    encoder = R2Plus1D(18, own_planes=False)
    file = saved(
        tmp_path / "tsp.pth",
        {
            "model": prefixed("features.", encoder.state_dict())
            | {"fc1.weight": torch.zeros(201, 512), "fc2.weight": torch.zeros(2, 1024)},
            "lr_scheduler": {"milestones": collections.Counter([4])},
            "args": argparse.Namespace(backbone="r2plus1d_18", workers=8),
            "epoch": 5,
        },
    )
    out = tmp_path / "tsp.safetensors"
    published = convert(file, out)
    assert published.detector is None
    assert published.metadata() == {
        "family": "TSP",
        "encoder": '{"depth": 18, "own_planes": false}',
    }
    built = build_encoder(EncoderSettings(name="r2plus1d_18", weights=out))
    for name, value in built.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name]), name


class Trap:
    """Its pickle opens a file when it is read with code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_with_code_is_refused_and_never_run(tmp_path):
    sprung = tmp_path / "sprung"
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": Trap(sprung)}, new)
    old.write_bytes(pickle.dumps({"state_dict": Trap(sprung)}, protocol=2))
    for path in (new, old):
        with pytest.raises(InputError) as caught:
            read_published(path)
        assert path.name in str(caught.value)
        assert not sprung.exists()
    with pytest.raises(InputError, match=r"new.pth: holds \S*open beside its weights.*state_dict"):
        read_published(new)


def test_what_is_no_published_checkpoint_is_named(published, tmp_path):
    weights = published["opentad"]
    damaged = {name: value for name, value in weights.items() if "tem.1.conv.bias" not in name}
    shared_layer = "roi_head.proposal_heads.0.shared_conv_fc.fcs.0.0.weight"
    flat = weights | {shared_layer: torch.zeros(3)}
    no_heads = {name: value for name, value in weights.items() if ".iou_head." not in name}
    cut = tmp_path / "cut.pth"
    cut.write_bytes(saved(tmp_path / "whole.pth", weights).read_bytes()[:5000])
    (tmp_path / "text.pth").write_text("404: not found")
    for path, words in {
        tmp_path / "absent.pth": ["no such checkpoint"],
        cut: ["cannot be read"],
        tmp_path / "text.pth": ["cannot be read"],
        saved(tmp_path / "list.pth", [1]): ["list"],
        saved(tmp_path / "foreign.pth", {"state_dict": {"conv.weight": torch.zeros(1)}}): [
            "no checkpoint of",
            "conv.weight",
        ],
        saved(tmp_path / "empty.pth", {"state_dict": {}}): ["holds nothing"],
        saved(tmp_path / "value.pth", weights | {"neck.size": 3}): ["neck.size", "no tensor"],
        saved(tmp_path / "missing.pth", damaged): [
            "(OpenTAD)",
            "missing (rpn_head.tem.1.conv.bias)",
        ],
        saved(tmp_path / "surplus.pth", weights | {"roi_head.x": torch.zeros(1)}): [
            "left over",
            "roi_head.x",
        ],
        saved(tmp_path / "shape.pth", weights | {"neck.mem_f.bias_ih_l0": torch.zeros(3)}): [
            "wrong shape (neck.mem_f.bias_ih_l0 (3,) instead of",
        ],
        saved(tmp_path / "flat.pth", {"state_dict": prefixed("module.", flat)}): [
            "module.roi_head.proposal_heads.0.shared_conv_fc.fcs.0.0.weight has the shape (3,)",
        ],
        saved(tmp_path / "none.pth", no_heads): [
            "roi_head.proposal_heads.0.iou_head.fcs.0.0.weight is missing",
        ],
    }.items():
        with pytest.raises(InputError) as caught:
            convert(path, tmp_path / "out.safetensors")
        for word in (path.name, *words):
            assert word in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_only_safetensors_are_written(tmp_path):
    with pytest.raises(InputError, match=r"\*\.safetensors"):
        convert(tmp_path / "a.pth", tmp_path / "a.pth")


def etadlite(monkeypatch, capsys, *arguments):
    """Run the command; its exit code, and what it printed."""
    monkeypatch.setattr(sys, "argv", ["etadlite", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0, capsys.readouterr()


def test_an_image_networks_file_is_converted_with_the_name_of_its_encoder(
    tmp_path, monkeypatch, capsys
):
    net = models.resnet18(weights=None)
    given, out = tmp_path / "mine.pth", tmp_path / "out.safetensors"
    torch.save(net.state_dict(), given)
    code, said = etadlite(monkeypatch, capsys, "convert", given, out)
    assert code == 2
    assert "say whose weights they are with --encoder" in said.err
    code, said = etadlite(monkeypatch, capsys, "convert", given, out, "--encoder", "image:resnet18")
    digest = hashlib.sha256(given.read_bytes()).hexdigest()
    assert code == 0
    assert f"read       {given}, SHA-256 {digest}" in said.out
    encoder = build_encoder(EncoderSettings(name="image:resnet18", weights=out))
    assert torch.equal(encoder.layer4.part[1].conv2.weight, net.layer4[1].conv2.weight)
    for name, words in (("r3d_19", 'did you mean "r3d_18"'), ("image:vgg11", "are not known")):
        code, said = etadlite(monkeypatch, capsys, "convert", given, out, "--encoder", name)
        assert code == 2
        assert words in said.err


def test_a_published_file_that_is_damaged_is_refused_by_its_name(tmp_path):
    damaged = tmp_path / "r3d_18-b3b3357e.pth"  # as torchvision names it
    torch.save(models.video.r3d_18(weights=None).state_dict(), damaged)
    with pytest.raises(InputError, match=r"r3d_18-b3b3357e.pth is damaged: .*, not b3b3357e"):
        convert(damaged, tmp_path / "out.safetensors")


def test_the_command_prints_what_it_recognised(shared, tmp_path, monkeypatch, capsys):
    weights = published_weights(shared, "opentad_thumos_i3d_keys.json")
    out = tmp_path / "out.safetensors"
    for file, code in ((saved(tmp_path / "a.pth", {"state_dict": weights}), 0), ("absent", 2)):
        monkeypatch.setattr(sys, "argv", ["etadlite", "convert", str(file), str(out)])
        monkeypatch.setattr(warnings, "showwarning", None)  # so that it is set back
        with pytest.raises(SystemExit) as end:
            main()
        assert (end.value.code or 0) == code
    printed, complaint = capsys.readouterr()
    assert printed.splitlines()[0].split() == ["family", "OpenTAD"]
    assert '"in_channels": 2048' in printed
    assert str(out) in printed
    assert Path(out).is_file()
    assert complaint.startswith("error: absent: there is no such checkpoint")


def test_a_converted_checkpoint_is_what_a_system_of_its_settings_loads(shared, tmp_path):
    weights = published_weights(shared, "etad_detector_keys.json")
    torch.save(
        {"state_dict": {f"base_detector.{k}": v for k, v in weights.items()}}, tmp_path / "a"
    )
    convert(tmp_path / "a", tmp_path / "b.safetensors")
    settings = Settings(name="x", data=DataSettings(annotations="a.json", features="features"))
    system = load_checkpoint(tmp_path / "b.safetensors", settings)
    torch.testing.assert_close(
        system.detector.state_dict()["evaluate.score.bias"], weights["tem.2.bias"]
    )
    opentad = settings.changed(["detector.layout=opentad", "detector.roi_size=16"])
    with pytest.raises(InputError, match="do not fit"):
        load_checkpoint(tmp_path / "b.safetensors", opentad)
