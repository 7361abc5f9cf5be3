"""Published checkpoints under this package's names, as safetensors; no pickled code is run."""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from etadlite.base.errors import InputError
from etadlite.base.weights import load_exactly, load_weights, save_weights
from etadlite.detector import ETADDetector
from etadlite.detector.stages import ReleasedStage
from etadlite.encoders import R2Plus1D, from_tsp

# What a published file calls its weights; where it has averaged ones, its own tests use those.
_WRAPPERS = ("state_dict_ema", "state_dict", "model")
# family -> how its names start, and what stands before those of a video encoder beside a detector.
_FAMILIES = {
    "released ETAD": (
        ("base_detector.", "temporal_enhance.", "feature_extractor."),
        "feature_extractor.model.backbone.",
    ),
    "OpenTAD": (("projection.", "neck.", "rpn_head.", "roi_head."), "backbone.model.backbone."),
    "TSP": (("features.", "stem."), ""),
}


class Published(NamedTuple):
    """What a published checkpoint holds.

    Attributes:
        family: `released ETAD`, `OpenTAD` or `TSP`.
        detector: in eval mode; None in a TSP file.
        encoder: in eval mode; None where the checkpoint has a detector alone.
    """

    family: str
    detector: ETADDetector | None
    encoder: R2Plus1D | None

    def metadata(self) -> dict[str, str]:
        """Family and sizes, as text."""
        sizes: dict[str, Any] = {"family": self.family}
        if self.detector is not None:
            project, stage = self.detector.enhance.project[0], self.detector.stages[0]
            sizes["detector"] = {
                "in_channels": project.in_channels,
                "width": project.out_channels,
                "layout": "released" if isinstance(stage, ReleasedStage) else "opentad",
                "roi_size": stage.roi_size,
                "hidden": stage.shared.out_features,
                "head": stage.iou[0].out_features,
                "num_stages": len(self.detector.stages),
            }
        if self.encoder is not None:
            depth = next(d for d, n in R2Plus1D.blocks.items() if n[2] == len(self.encoder.layer3))
            # Torchvision's planes come with its epsilon.
            own_planes = self.encoder.stem[1].eps == 1e-3
            sizes["encoder"] = {"depth": depth, "own_planes": own_planes}
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in sizes.items()}

    def module(self) -> nn.Module:
        """What is written: a system's `detector` and `encoder.encoder`, or the encoder by itself.

        An encoder by itself has the names that the setting `encoder.weights` expects.
        """
        if self.detector is None:
            return self.encoder
        parts: dict[str, nn.Module] = {"detector": self.detector}
        if self.encoder is not None:
            parts["encoder"] = nn.ModuleDict({"encoder": self.encoder})
        return nn.ModuleDict(parts)


def read_published(path: str | Path) -> Published:
    """Recognise a published checkpoint and build what it holds.

    Recognised are the files of the code released with the paper (detector alone, or with its
    encoder), of OpenTAD's ETAD, and of TSP's R(2+1)D encoders, with or without `module.` in front
    of their names.

    Args:
        path: the file that `torch.save` wrote.

    Raises:
        InputError: the file is absent, broken or holds more than weights and plain values (which
            are then not read); it is of no known family; or keys, which are named as in the file,
            are missing, left over or of the wrong shape.
    """
    checkpoint = _load_without_code(Path(path))
    weights = next((checkpoint[key] for key in _WRAPPERS if key in checkpoint), checkpoint)
    if not isinstance(weights, Mapping):
        raise InputError(f"{path}: its weights are no mapping of names; fetch the file again")
    names = {str(name).removeprefix("module.") for name in weights}
    starts = [(family, s) for family, (starts, _) in _FAMILIES.items() for s in starts]
    family = next((f for f, s in starts if any(n.startswith(s) for n in names)), None)
    if family is None:
        found = ", ".join(list(weights)[:3]) or "nothing"
        raise InputError(
            f"{path}: no checkpoint of the released ETAD, of OpenTAD's ETAD or of a TSP encoder;"
            f" it holds {found}"
        )
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{path}: {name} is no tensor but {type(value).__name__}")
    try:
        return _build(family, weights)
    except InputError as error:
        raise InputError(f"{path} ({family}): {error}") from None


def convert(path: str | Path, out: str | Path) -> Published:
    """Write a published checkpoint under this package's names; see `read_published`.

    Args:
        path: the published file.
        out: the safetensors file to write. Its names are those of a system's checkpoint
            (`detector.*`, `encoder.encoder.*`); a TSP encoder has those that `encoder.weights`
            expects. Its metadata hold the family and the sizes.

    Raises:
        InputError: as `read_published`, or `out` is no name of a safetensors file.
    """
    if Path(out).suffix != ".safetensors":
        raise InputError(f"{out}: the converted file must be named *.safetensors")
    published = read_published(path)
    save_weights(out, published.module(), published.metadata())
    return published


def load_converted(path: str | Path) -> Published:
    """Build what `convert` wrote.

    Raises:
        InputError: the file is absent, broken or not written by `convert`.
    """
    weights, metadata = load_weights(path)
    if "family" not in metadata:
        raise InputError(f"{path} is no converted checkpoint; write it with etadlite convert")
    detector, encoder = (json.loads(metadata.get(part, "null")) for part in ("detector", "encoder"))
    published = Published(
        metadata["family"],
        detector and ETADDetector(**detector).eval(),
        encoder and R2Plus1D(**encoder).eval(),
    )
    load_exactly(published.module(), weights, str(path))
    return published


def _build(family: str, weights: Mapping[str, Tensor]) -> Published:
    if family == "TSP":
        return Published(family, None, from_tsp(weights))
    detector = ETADDetector.from_published(weights).eval()
    prefix = _FAMILIES[family][1]
    # Whatever else lies beside the encoder is then called left over.
    room = prefix.partition(".")[0] + "."
    beside = {k: v for k, v in weights.items() if k.removeprefix("module.").startswith(room)}
    if not beside:
        return Published(family, detector, None)
    parallel = "module." if next(iter(beside)).startswith("module.") else ""
    return Published(family, detector, from_tsp(beside, prefix=parallel + prefix))


def _load_without_code(path: Path) -> Mapping[str, Any]:
    """The outer mapping of a file of `torch.save`."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such checkpoint; check the path")
    try:
        # TSP's files hold the arguments of their training: a namespace, which does nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        if name is None:
            raise InputError(
                f"{path}: cannot be read as a checkpoint; fetch the file again"
            ) from None
        raise InputError(
            f"{path}: holds {name[1]} beside its weights, which would run code when read, and was"
            ' not read; save {"state_dict": its weights} alone where it comes from, and convert'
            " that file"
        ) from None
    except PermissionError:
        raise
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        IndexError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as a checkpoint ({reason}); fetch it again"
        ) from None
    if not isinstance(checkpoint, Mapping):
        raise InputError(f"{path}: holds a {type(checkpoint).__name__}, no mapping with weights")
    return checkpoint
