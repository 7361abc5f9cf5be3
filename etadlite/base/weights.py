"""Weights: safetensors files, and state dicts that are loaded without leaving anything out."""

import hashlib
from collections.abc import Callable, Container, Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

from etadlite.base.errors import InputError, damage_named
from etadlite.base.files import written_whole


def save_weights(
    path: str | Path, module: nn.Module, metadata: dict[str, str], without: Container[str] = ()
) -> None:
    """Write a module's state dict, `without` some names, and texts about it as safetensors.

    The file is written whole or not at all.
    """
    weights = {name: v for name, v in module.state_dict().items() if name not in without}
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    with written_whole(Path(path)) as draft:
        draft.write_bytes(save(tensors, metadata))


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the state dict, on the CPU, and the metadata of a safetensors file.

    Raises:
        InputError: the file is missing, cut off or no safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such weights file; check the path")
    with (
        damage_named(f"{path} is not a complete safetensors file", "fetch or convert it again"),
        safetensors.safe_open(path, framework="pt") as file,
    ):
        state_dict = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        return state_dict, file.metadata() or {}


def fingerprint(module: nn.Module, names: Container[str] | None = None) -> str:
    """Return a digest of a module's weights, or some, whichever file they came from."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        if names is not None and name not in names:
            continue
        digest.update(name.encode())
        flat = value.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_exactly(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    name_in_source: Callable[[str], str] = str,
) -> None:
    """Load all of `weights` into `module`, whose state dict has the same names.

    Raises:
        InputError: keys are missing, left over or of the wrong shape; it names the `source` and
            the keys, as `name_in_source` gives them.
    """
    expected = module.state_dict()
    if _shapes_of(weights) != _shapes_of(expected):
        from etadlite.base.weight_checks import misfits  # weights rarely have any

        found = misfits(_shapes_of(weights), _shapes_of(expected), name_in_source)
        raise InputError(f"{source} do not fit: {found}")
    module.load_state_dict(dict(weights))


def _shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight."""
    return {name: tuple(value.shape) for name, value in weights.items()}
