"""Transformers' video networks as encoders: its own numbers, files in its layouts, the hub."""

import copy
import hashlib
import sys

import pytest
import torch
from benchmarks.encoders import SMALL_SIZES as SIZES
from benchmarks.encoders import small_networks
from conftest import assert_engine_is_plain_back_propagation
from torch import nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from etadlite.base.draws import Draws
from etadlite.base.errors import InputError
from etadlite.config import ENCODERS, EncoderSettings, read_settings
from etadlite.encoders.build import bare_encoder, build_encoder
from etadlite.encoders.loading import load_published
from etadlite.encoders.objects import try_encoder
from etadlite.encoders.staged import freeze
from etadlite.encoders.transformers_video import NETWORKS
from etadlite.model import SequentialEncoder
from etadlite.prepare.convert import convert, read_published
from etadlite.prepare.encoder_table import _costs
from etadlite.presets import preset

transformers = pytest.importorskip("transformers")
huggingface_hub = pytest.importorskip("huggingface_hub")

CLASSES = {
    "videomae_b": "VideoMAE",
    "timesformer_b": "Timesformer",
    "vivit_b": "Vivit",
    "vjepa2_l": "VJEPA2",
}


@pytest.fixture(autouse=True)
def _small():
    with small_networks():
        yield


def snippets(n: int, frames: int = 4, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, frames, side, side), dtype=torch.uint8)


def named(name: str, **options):
    return bare_encoder(EncoderSettings(name=name, **options))


def shaken(net):
    """A network without zeros that would hide a wrong place."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


def published(name: str, **sizes) -> nn.Module:
    """Transformers' classification network."""
    configuration = getattr(transformers, f"{CLASSES[name]}Config")(**(SIZES[name] | sizes))
    return shaken(getattr(transformers, f"{CLASSES[name]}ForVideoClassification")(configuration))


@pytest.mark.parametrize("name", CLASSES)
def test_files_of_transformers_load_by_name_and_give_transformers_output(name, tmp_path):
    net, frames = published(name, num_labels=7), snippets(2)
    net.save_pretrained(tmp_path)  # with the names of older versions, as on the hub
    torch.save(net.state_dict(), tmp_path / "pytorch_model.bin")
    assert convert(tmp_path / "pytorch_model.bin", tmp_path / "own.safetensors").family == name
    assert read_published(tmp_path / "model.safetensors").family == name
    for file in ("model.safetensors", "own.safetensors"):
        encoder = build_encoder(EncoderSettings(name=name, weights=tmp_path / file)).eval()
        with torch.no_grad():
            expected = net(encoder.normalise(frames).transpose(1, 2)).logits
            found = net.classifier(encoder(frames))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert expected.std() > 1e-3


def videomae_v2_feature(weights, x: torch.Tensor, heads: int = 2) -> torch.Tensor:
    """The ViT of VideoMAE v2 by its formulas, with its names: pixels [n, 3, F, H, W] -> [n, C]."""
    patches = weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]
    x = nn.functional.conv3d(x, *patches, stride=(2, 16, 16)).flatten(2).transpose(1, 2)
    tokens, width = x.shape[1:]
    place, channel = torch.arange(tokens)[:, None], torch.arange(width)
    angle = place / 10000 ** (2 * (channel // 2) / width)
    x = x + torch.where(channel % 2 == 0, angle.sin(), angle.cos())
    norm = {"normalized_shape": (width,), "eps": 1e-6}
    for k in range(3):
        block = {n.removeprefix(f"blocks.{k}."): w for n, w in weights.items()}
        y = layer_norm(x, weight=block["norm1.weight"], bias=block["norm1.bias"], **norm)
        zeros = torch.zeros(width)
        bias = torch.cat((block["attn.q_bias"], zeros, block["attn.v_bias"]))
        y = nn.functional.linear(y, block["attn.qkv.weight"], bias)
        q, k_, v = y.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(q, k_, v).transpose(1, 2).flatten(2)
        x = x + nn.functional.linear(y, block["attn.proj.weight"], block["attn.proj.bias"])
        y = layer_norm(x, weight=block["norm2.weight"], bias=block["norm2.bias"], **norm)
        y = gelu(nn.functional.linear(y, block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
        x = x + nn.functional.linear(y, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
    fc_norm = {"weight": weights["fc_norm.weight"], "bias": weights["fc_norm.bias"]}
    return layer_norm(x.mean(1), **fc_norm, **norm)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_files_of_videomae_v2_load_and_give_what_its_formulas_give(prefix, tmp_path):
    weights = {
        "patch_embed.proj.weight": (24, 3, 2, 16, 16),
        "patch_embed.proj.bias": (24,),
        "fc_norm.weight": (24,),
        "fc_norm.bias": (24,),
    }
    for k in range(3):
        for part in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.proj.bias"):
            weights[f"blocks.{k}.{part}"] = (24,)
        weights |= {f"blocks.{k}.attn.{part}": (24,) for part in ("q_bias", "v_bias")}
        weights[f"blocks.{k}.attn.qkv.weight"] = (72, 24)
        weights[f"blocks.{k}.attn.proj.weight"] = (24, 24)
        weights |= {f"blocks.{k}.mlp.fc1.weight": (32, 24), f"blocks.{k}.mlp.fc1.bias": (32,)}
        weights |= {f"blocks.{k}.mlp.fc2.weight": (24, 32), f"blocks.{k}.mlp.fc2.bias": (24,)}
    weights = {name: 0.2 * torch.randn(shape) for name, shape in weights.items()}
    torch.save({"module": {prefix + k: v for k, v in weights.items()}}, tmp_path / "v2.pth")
    assert convert(tmp_path / "v2.pth", tmp_path / "v2.safetensors").family == "videomaev2_b"
    settings = EncoderSettings(name="videomaev2_b", weights=tmp_path / "v2.safetensors")
    encoder, frames = build_encoder(settings).eval(), snippets(2)
    with torch.no_grad():
        expected = videomae_v2_feature(weights, encoder.normalise(frames))
        torch.testing.assert_close(encoder(frames), expected, rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_fit_are_refused_with_their_own_names():
    weights = dict(published("vivit_b").state_dict())
    weights["vivit.embeddings.cls_token"] = torch.zeros(1, 1, 5)
    weights["more"] = weights.pop("vivit.layernorm.weight")
    with pytest.raises(InputError, match="the file do not fit") as error:
        load_published(named("vivit_b"), weights, "the file")
    for words in ("missing (vivit.layernorm.weight)", "left over (more)", "cls_token (1, 1, 5)"):
        assert words in str(error.value)
    net = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**_pretrained()))
    with pytest.raises(InputError, match="do not fit: .* missing .fc_norm"):
        load_published(named("videomae_b"), net.state_dict(), "the file")
    with pytest.raises(InputError, match="the file do not fit"):
        load_published(named("timesformer_b"), published("vivit_b").state_dict(), "the file")


def _pretrained() -> dict:
    decoder = {"decoder_hidden_size": 24, "decoder_num_attention_heads": 2}
    decoder |= {"decoder_num_hidden_layers": 1, "decoder_intermediate_size": 8}
    return SIZES["videomae_b"] | decoder | {"use_mean_pooling": False}


@pytest.mark.parametrize("name", SIZES)
def test_ratio_one_equals_plain_back_propagation_and_no_feature_depends_on_its_chunk(name):
    encoder = freeze(shaken(named(name)).double(), 1)
    engines = [(2, "device"), (3, "nothing")]
    assert_engine_is_plain_back_propagation(encoder, snippets(5)[None], engines)


@pytest.mark.parametrize("name", SIZES)
def test_frozen_stages_never_change_and_the_rest_does(name):
    encoder = build_encoder(EncoderSettings(name=name, frozen_stages=1), pretrained=False)
    assert encoder.stage_names == ("stem", "block1", "block2", "block3", "last")
    before = copy.deepcopy(encoder.state_dict())
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    (encoder.train()(snippets(2)) * torch.randn(24)).sum().backward()
    optimizer.step()
    changed = {
        k.partition(".")[0] for k, v in encoder.state_dict().items() if v.ne(before[k]).any()
    }
    assert changed == {"block2", "block3", "last"}


def test_dropout_draws_the_same_for_a_snippet_in_both_passes(monkeypatch):
    sizes = SIZES["vivit_b"] | {"hidden_dropout_prob": 0.3}
    monkeypatch.setitem(NETWORKS, "vivit_b", NETWORKS["vivit_b"]._replace(sizes=sizes))
    encoder = shaken(named("vivit_b")).train()
    engine, frames = SequentialEncoder(encoder, 4, ratio=1.0), snippets(4)[None]
    trained = [p for p in encoder.parameters() if p.requires_grad]
    torch.manual_seed(5)
    plain = torch.autograd.grad(encoder(frames[0]).square().sum(), trained)
    torch.manual_seed(5)
    found = torch.autograd.grad(engine(frames, Draws(range(1))).square().sum(), trained)
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(("frames", "side"), [(3, 32), (4, 48), (2, 16)])
def test_snippets_that_a_network_cannot_take_are_refused_in_one_sentence(name, frames, side):
    changes = [f"data.frames={frames}", f"data.crop={side}", "data.decode_size=[48,48]"]
    data = preset("e2e_stickfigures", changes).data
    words = f"{name} cannot encode snippets of {frames} frames of {side}x{side} pixels: it takes "
    with pytest.raises(InputError, match=words) as error:
        try_encoder(named(name), data, name)
    assert "32x32 pixels alone" in str(error.value)
    assert "\n" not in str(error.value)


def test_v_jepa_2_takes_other_even_numbers_of_frames():
    encoder = shaken(named("vjepa2_l"))
    with torch.no_grad():
        assert encoder(snippets(1, frames=10)).shape == (1, 24)


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [  # of the published image processors: (0 - mean) / deviation, (1 - mean) / deviation
        ("videomae_b", -0.485 / 0.229, 0.515 / 0.229),
        ("timesformer_b", -0.45 / 0.225, 0.55 / 0.225),
        ("vivit_b", -1, 1),
        ("vjepa2_l", -0.485 / 0.229, 0.515 / 0.229),
    ],
)
def test_pixels_are_normalised_as_the_weights_expect(name, black, white):
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1, 1).expand(2, 3, 4, 32, 32)
    pixels = named(name).normalise(frames)
    assert pixels[0, 0].mean().item() == pytest.approx(black, abs=1e-5)
    assert pixels[1, 0].mean().item() == pytest.approx(white, abs=1e-5)


def test_settings_follow_from_the_name_and_an_unknown_one_is_refused_with_the_nearest():
    settings = preset("e2e_anet_tsp", ["encoder.name=timesformer_b"])
    assert (settings.data.frames, settings.detector.in_channels) == (4, 24)
    tree = settings.model_dump()
    tree["encoder"]["name"] = "timesfomer_b"
    with pytest.raises(InputError, match='no such encoder; did you mean "timesformer_b"'):
        read_settings(tree, "f")


def test_without_transformers_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        InputError, match=r'videomae_b needs transformers: pip install "etadlite\[hf'
    ):
        named("videomae_b")
    assert _costs("videomae_b") is None


# The hub, which is not there


class Hub:
    """A hub of one repository whose cache is a folder; it names files by their SHA-256."""

    def __init__(self, folder, repository: str, files: dict[str, bytes]) -> None:
        self.folder, self.repository, self.files, self.online = folder, repository, files, True

    def blob(self, file: str):
        return self.folder / hashlib.sha256(self.files[file]).hexdigest()

    def download(self, repository: str, file: str, *, local_files_only: bool) -> str:
        assert repository == self.repository
        link = self.folder / file
        if not link.exists():
            if local_files_only or not self.online:
                raise huggingface_hub.errors.LocalEntryNotFoundError("cannot reach\nthe hub")
            if file not in self.files:
                raise huggingface_hub.errors.EntryNotFoundError(file)
            self.blob(file).write_bytes(self.files[file])
            link.symlink_to(self.blob(file))
        return str(link)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A function that makes a hub with a network of transformers; it gives both."""

    def made(name: str, repository: str, file: str = "model.safetensors", **sizes):
        net = published(name, **sizes)
        folder = tmp_path / "saved"
        net.save_pretrained(folder)
        torch.save(net.state_dict(), folder / "pytorch_model.bin")
        files = {each: (folder / each).read_bytes() for each in ("config.json", file)}
        found = Hub(tmp_path, repository, files)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", found.download)
        return found, net

    return made


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_by_name_come_from_the_hub_once_and_their_checksum_is_said(hub, file, capsys):
    found, net = hub("vivit_b", "google/vivit-b-16x2-kinetics400", file)
    settings = EncoderSettings(name="vivit_b", weights="kinetics400")
    capsys.readouterr()
    for online in (True, False):  # the second time from the cache
        found.online = online
        encoder = build_encoder(settings)
        assert torch.equal(encoder.last[0].weight, net.vivit.layernorm.weight)
        said = f"weights: kinetics400 of vivit_b, SHA-256 {found.blob(file).name}\n"
        assert capsys.readouterr().err == said
    found.blob(file).write_bytes(b"cut off")
    with pytest.raises(InputError, match=f"{file} is damaged: its SHA-256 is .*fetch it again"):
        build_encoder(settings)


def test_without_a_network_or_with_an_unknown_name_weights_are_refused_in_one_sentence(hub):
    found, _ = hub("vjepa2_l", "facebook/vjepa2-vitl-fpc16-256-ssv2")
    found.online = False
    words = r"the weights ssv2 of vjepa2_l cannot be fetched \(cannot reach\); connect to the"
    with pytest.raises(InputError, match=words):
        build_encoder(EncoderSettings(name="vjepa2_l", weights="ssv2"))
    with pytest.raises(InputError, match="vjepa2_l has no weights kinetics400; there are ssv2"):
        build_encoder(EncoderSettings(name="vjepa2_l", weights="kinetics400"))


def test_weights_of_another_configuration_are_refused_though_their_shapes_fit(hub):
    hub("vivit_b", "google/vivit-b-16x2-kinetics400", num_attention_heads=3)
    words = "vivit-b-16x2-kinetics400 has num_attention_heads 3, but vivit_b has 2"
    with pytest.raises(InputError, match=words):
        build_encoder(EncoderSettings(name="vivit_b", weights="kinetics400"))


def test_every_network_has_settings_weights_and_a_licence():
    for name, network in NETWORKS.items():
        assert name in ENCODERS
        assert network.weights
        assert network.licence
