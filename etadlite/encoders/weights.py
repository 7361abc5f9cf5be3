"""Weights in and out: safetensors files, TSP's published state dicts, the shipped tiny encoder."""

import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
from safetensors.torch import save
from torch import Tensor, nn

from etadlite.encoders.r2plus1d import R2Plus1D, TinyR2Plus1D
from etadlite.errors import InputError

TINY_WEIGHTS = Path(__file__).with_name("tiny_r2plus1d.safetensors")


def save_weights(path: str | Path, module: nn.Module, metadata: dict[str, str]) -> None:
    """Write a module's state dict as safetensors; a reader never sees half a file.

    Args:
        path: the file; its folder is made if need be.
        module: whose state dict is written, from any device.
        metadata: text to keep beside the weights (seed, versions, accuracy).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(save(tensors, metadata))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file.

    Args:
        path: the file.

    Returns:
        The state dict, on the CPU, and the metadata.

    Raises:
        InputError: the file is absent, cut off or no safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such weights file; check the path")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state_dict = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            return state_dict, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path}: not a complete safetensors file ({error}); fetch or convert it again"
        ) from error


def load_strictly(module: nn.Module, state_dict: Mapping[str, Tensor], what: str) -> None:
    """Load a state dict that must fit exactly.

    Args:
        module: changed in place.
        state_dict: name -> tensor.
        what: the file or thing that the error names.

    Raises:
        InputError: keys are missing, left over or of another shape; each is listed.
    """
    own = module.state_dict()
    wrong = [
        f"{k} {list(state_dict[k].shape)} instead of {list(own[k].shape)}"
        for k in own.keys() & state_dict.keys()
        if state_dict[k].shape != own[k].shape
    ]
    faults = {
        "missing": own.keys() - state_dict.keys(),
        "left over": state_dict.keys() - own.keys(),
        "of wrong shape": wrong,
    }
    if any(faults.values()):
        listed = "; ".join(f"{fault}: {', '.join(sorted(k))}" for fault, k in faults.items() if k)
        raise InputError(f"{what} does not fit {type(module).__name__}: {listed}")
    module.load_state_dict(state_dict)


def from_tsp(state_dict: Mapping) -> R2Plus1D:
    """Build the encoder that TSP published, from its state dict.

    Args:
        state_dict: name -> tensor, or the published file's outer dict that holds it under
            ``model``. The prefixes ``module.`` and ``features.`` are taken off; the ``fc`` heads
            are dropped.

    Returns:
        The encoder in eval mode, its depth and mid planes told from the keys.

    Raises:
        InputError: the keys are of no R(2+1)D-18 or -34; the missing, left-over and wrong-shape
            ones are listed.
    """
    inner = state_dict.get("model", state_dict)
    weights = {k.removeprefix("module.").removeprefix("features."): v for k, v in inner.items()}
    weights = {k: v for k, v in weights.items() if not k.startswith("fc")}
    depth = 34 if any(k.startswith("layer3.2.") for k in weights) else 18
    # Where planes double, torchvision's second convolution reuses the mid planes of the first.
    first, second = (weights.get(f"layer2.0.conv{i}.0.0.weight") for i in (1, 2))
    shared = first is not None and second is not None and first.shape[0] == second.shape[0]
    encoder = R2Plus1D(depth, own_planes=not shared)
    load_strictly(encoder, weights, "the state dict")
    return encoder.eval()


def tiny_encoder(pretrained: bool = True) -> TinyR2Plus1D:
    """Make the laptop encoder.

    Args:
        pretrained: load the shipped weights (actions of the studio clips); else fresh ones.

    Returns:
        The encoder in eval mode.
    """
    encoder = TinyR2Plus1D()
    if pretrained:
        state_dict, _ = load_weights(TINY_WEIGHTS)
        load_strictly(encoder, state_dict, str(TINY_WEIGHTS))
    return encoder.eval()
