"""Published checkpoints rewritten as safetensors with this package's names; no code is run."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple
from zipfile import ZipFile, is_zipfile

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from etadlite.base.devices import require_memory
from etadlite.base.errors import InputError, first_line
from etadlite.base.weight_checks import checksum
from etadlite.base.weights import load_weights, save_weights
from etadlite.config import EncoderSettings
from etadlite.detector import ETADDetector
from etadlite.detector.stages import ReleasedStage
from etadlite.encoders import (
    R2Plus1D,
    StagedEncoder,
    from_tsp,
    torchvision_video,
    transformers_video,
)
from etadlite.encoders.build import bare_encoder
from etadlite.encoders.loading import load_published
from etadlite.encoders.published import torchvision_digest

# Names of the weights in a published file; averaged weights come first, as its own tests use them.
_WRAPPERS = ("state_dict_ema", "state_dict", "model", "module")
# family -> first parts of its names, and the prefix of a video encoder beside a detector.
_FAMILIES = {
    "released ETAD": (
        ("base_detector.", "temporal_enhance.", "feature_extractor."),
        "feature_extractor.model.backbone.",
    ),
    "OpenTAD": (("projection.", "neck.", "rpn_head.", "roi_head."), "backbone.model.backbone."),
    "TSP": (("features.", "stem."), ""),
}


class Published(NamedTuple):
    """The modules of a published checkpoint, in eval mode; None where it has none."""

    family: str  # released ETAD, OpenTAD, TSP, or the encoder's name
    detector: ETADDetector | None
    encoder: StagedEncoder | None

    def metadata(self) -> dict[str, str]:
        """Return the family, and the sizes as JSON."""
        texts = {"family": self.family}
        if self.detector is not None:
            project, stage = self.detector.enhance.project[0], self.detector.stages[0]
            sizes = {
                "in_channels": project.in_channels,
                "width": project.out_channels,
                "layout": "released" if isinstance(stage, ReleasedStage) else "opentad",
                "roi_size": stage.roi_size,
                "hidden": stage.shared.out_features,
                "head": stage.iou[0].out_features,
                "num_stages": len(self.detector.stages),
            }
            texts["detector"] = json.dumps(sizes)
        if isinstance(self.encoder, R2Plus1D):
            depth = next(d for d, n in R2Plus1D.blocks.items() if n[2] == len(self.encoder.layer3))
            # Torchvision's planes come with torchvision's epsilon.
            own_planes = self.encoder.stem[1].eps == 1e-3
            texts["encoder"] = json.dumps({"depth": depth, "own_planes": own_planes})
        return texts

    def module(self) -> nn.Module:
        """Return the module whose state dict is written.

        With a detector it has a system's names (`detector`, `encoder.encoder`). An encoder alone
        has the names that the setting `encoder.weights` expects.
        """
        if self.detector is None:
            return self.encoder
        parts: dict[str, nn.Module] = {"detector": self.detector}
        if self.encoder is not None:
            parts["encoder"] = nn.ModuleDict({"encoder": self.encoder})
        return nn.ModuleDict(parts)


def read_published(path: str | Path, encoder: str | None = None) -> Published:
    """Recognise a published checkpoint, of `torch.save` or safetensors, and build its modules.

    Recognised are the files of the code released with the paper (a detector, with or without its
    encoder), of OpenTAD's ETAD, of TSP's R(2+1)D encoders, and of torchvision's and transformers'
    video networks. Names may start with `module.`. Other files need the name of their `encoder`,
    such as `image:resnet18`.

    Raises:
        InputError: the file is absent or broken; it holds more than weights and plain values, and
            is then not read; its family is unknown; or keys, named as in the file, are missing,
            left over or of the wrong shape.
    """
    path = Path(path)
    is_safe = path.suffix == ".safetensors"
    checkpoint = load_weights(path)[0] if is_safe else _load_without_code(path)
    weights = next((checkpoint[key] for key in _WRAPPERS if key in checkpoint), checkpoint)
    if not isinstance(weights, Mapping):
        raise InputError(f"{path}: its weights are no mapping of names; fetch the file again")
    _refuse_inflation(path, weights)
    known = encoder or transformers_video.recognise(weights) or torchvision_video.recognise(weights)
    if known is not None:
        if known in torchvision_video.NAMES:
            checksum(path, torchvision_digest(known, path.name))
        built = bare_encoder(_named(known))
        load_published(built, weights, str(path))
        return Published(known, None, built.eval())
    names = {str(name).removeprefix("module.") for name in weights}
    fits = [f for f, (starts, _) in _FAMILIES.items() if any(n.startswith(starts) for n in names)]
    if not fits:
        found = ", ".join(list(weights)[:3]) or "nothing"
        raise InputError(
            f"{path} is no checkpoint of the released ETAD, of OpenTAD's ETAD, of a TSP encoder or "
            f"of a video network of torchvision or transformers (it holds {found}); say whose "
            "weights they are with --encoder, such as image:resnet18"
        )
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{path}: {name} is no tensor but {type(value).__name__}")
    try:
        return _build(fits[0], weights)
    except InputError as error:
        raise InputError(f"{path} ({fits[0]}): {error}") from None


def convert(path: str | Path, out: str | Path, encoder: str | None = None) -> Published:
    """Write a published checkpoint as safetensors; see `read_published`.

    `Published.module` says which names the file has; its metadata hold the family and the sizes.

    Raises:
        InputError: as in `read_published`, or `out` is not named *.safetensors.
    """
    if Path(out).suffix != ".safetensors":
        raise InputError(f"{out}: the converted file must be named *.safetensors")
    published = read_published(path, encoder)
    save_weights(out, published.module(), published.metadata())
    return published


def _named(name: str) -> EncoderSettings:
    """Return the settings of an encoder by its name.

    Raises:
        InputError: there is no such encoder.
    """
    try:
        return EncoderSettings(name=name)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f'"{name}": {reason}') from None


def _build(family: str, weights: Mapping[str, Tensor]) -> Published:
    if family == "TSP":
        return Published(family, None, from_tsp(weights))
    detector = ETADDetector.from_published(weights).eval()
    prefix = _FAMILIES[family][1]
    # Everything with the prefix's first part goes to the encoder, which reports what is left over.
    first = prefix.partition(".")[0] + "."
    beside = {k: v for k, v in weights.items() if k.removeprefix("module.").startswith(first)}
    if not beside:
        return Published(family, detector, None)
    parallel = "module." if next(iter(beside)).startswith("module.") else ""
    return Published(family, detector, from_tsp(beside, prefix=parallel + prefix))


def _refuse_inflation(path: Path, weights: Mapping[str, Any]) -> None:
    """Refuse weights that need more memory than their file can hold, before a model is built."""
    tensors = [value for value in weights.values() if isinstance(value, Tensor)]
    asked, held = sum(t.numel() * t.element_size() for t in tensors), path.stat().st_size
    if asked > 2 * held:  # weights that several names share stand once in the file
        raise InputError(
            f"{path} has {held:,} bytes, but its weights ask for {asked / 2**30:,.1f} GiB of "
            "memory; fetch it again from where it was published"
        )


def _load_without_code(path: Path) -> Mapping[str, Any]:
    """Return the outer mapping of a file of `torch.save`."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such checkpoint; check the path")
    remedy = 'save {"state_dict": its weights} alone where it comes from, and convert that file'
    try:
        if is_zipfile(path):
            with ZipFile(path) as packed:
                unpacked = sum(entry.file_size for entry in packed.infolist())
            if unpacked > 2 * path.stat().st_size:  # `torch.save` does not compress
                require_memory(unpacked, f"{path} unpacks to weights")
        # TSP's files hold the arguments of their training in a namespace, which is harmless.
        with safe_globals([argparse.Namespace]):
            try:
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            except UnpicklingError:
                unsafe = get_unsafe_globals_in_checkpoint(path) if is_zipfile(path) else []
                if not unsafe:
                    raise InputError(
                        f"{path}: cannot be read as a checkpoint without running code; fetch it "
                        f"again, or {remedy}"
                    ) from None
                raise InputError(
                    f"{path}: holds {', '.join(sorted(unsafe))} beside its weights, which would "
                    f"run code when read, and was not read; {remedy}"
                ) from None
    except (PermissionError, InputError):
        raise
    except Exception as error:  # the unpickler may raise nearly anything for a broken file
        reason = first_line(error)
        raise InputError(
            f"{path}: cannot be read as a checkpoint ({reason}); fetch it again"
        ) from None
    if not isinstance(checkpoint, Mapping):
        raise InputError(f"{path}: holds a {type(checkpoint).__name__}, no mapping with weights")
    return checkpoint
