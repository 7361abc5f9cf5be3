"""A user's own module as an encoder, and a try of any encoder before it is used."""

import copy
import importlib

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensorMode,
)

from etadlite.base.errors import InputError, first_line
from etadlite.config import ENCODERS, DataSettings
from etadlite.encoders.staged import StagedEncoder


def made(name: str) -> nn.Module:
    """Call the factory `package.module:factory`, and return the module that it makes.

    Raises:
        InputError: it cannot be imported, or gives no module.
    """
    module, _, factory = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise InputError(f"encoder.name={name} cannot be imported: {error}") from None
    if not isinstance(made, nn.Module):
        raise InputError(f"encoder.name={name} gives a {type(made).__name__}, not an nn.Module")
    return made


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


class _Opaque(StagedEncoder):
    """A module that is its own single stage."""

    def __init__(self, module: nn.Module, channels: int) -> None:
        super().__init__({"all": module}, channels)

    def normalise(self, frames: Tensor) -> Tensor:
        return frames

    def pool(self, x: Tensor) -> Tensor:
        return x


@torch.no_grad()
def try_encoder(encoder: StagedEncoder, data: DataSettings, name: str) -> None:
    """Encode two snippets of noise, and those of a user's own module also each by itself.

    For encoders by name the tests prove that a feature depends on no other snippet, so that shapes
    alone are tried, on tensors without numbers: a large encoder would take minutes.

    Raises:
        InputError: the encoder cannot take snippets of this size, its features have another shape,
            or a feature depends on the other snippets of its chunk.
    """
    size = f"{data.frames} frames of {data.crop}x{data.crop} pixels"
    noise = torch.Generator().manual_seed(0)
    shape = (2, 3, data.frames, data.crop, data.crop)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=noise)
    training = encoder.training
    by_name = name in ENCODERS or name.startswith(("image:", "timm:"))
    half = any(p.dtype == torch.bfloat16 for p in encoder.parameters())
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            together = alone = _without_numbers(encoder, frames) if by_name else encoder(frames)
            if not by_name:
                random = not torch.equal(together, encoder(frames))  # as dropout is
                together = encoder.train(training and not random)(frames)
                alone = torch.cat([encoder(snippet[None]) for snippet in frames])
    except (RuntimeError, ValueError, TypeError) as error:
        reason = first_line(error)
        raise InputError(
            f"{name} cannot encode snippets of {size}: {reason}; change data.frames or data.crop"
        ) from None
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


def _without_numbers(encoder: StagedEncoder, frames: Tensor) -> Tensor:
    """Return zeros of the shape of an encoder's features."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            with FakeCopyMode(mode):
                fake = copy.deepcopy(encoder)
            shape = fake(mode.from_tensor(frames)).shape
    except (DataDependentOutputException, DynamicOutputShapeException):  # it asks for numbers
        return encoder(frames)
    return torch.zeros(shape)
