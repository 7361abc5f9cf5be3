"""Weights: safetensors files, and state dicts of which nothing is silently left out."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors
from safetensors.torch import save
from torch import Tensor, nn

from etadlite.base.errors import InputError
from etadlite.base.files import written_whole


def save_weights(path: str | Path, module: nn.Module, metadata: dict[str, str]) -> None:
    """Write a module's state dict as safetensors; a reader never sees half a file.

    Args:
        path: the file; its folder is made if need be.
        module: whose state dict is written, from any device.
        metadata: text to keep beside the weights (seed, versions, accuracy).
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    with written_whole(Path(path)) as draft:
        draft.write_bytes(save(tensors, metadata))


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


def fingerprint(module: nn.Module) -> str:
    """Digest of a module's weights: the same for the same weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_exactly(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    called: Callable[[str], str] = str,
) -> None:
    """Load all of `weights` into `module`.

    Args:
        module: whose names the weights have.
        weights: name -> weight.
        source: where they come from, for messages.
        called: name -> what the source calls it, for messages.

    Raises:
        InputError: naming `source` and the keys that are missing, left over or of the wrong shape.
    """
    expected = module.state_dict()
    complaints = {
        "missing": [called(name) for name in expected if name not in weights],
        "left over": [called(name) for name in weights if name not in expected],
        "of the wrong shape": [
            f"{called(name)} {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
            for name, value in expected.items()
            if name in weights and weights[name].shape != value.shape
        ],
    }
    found = [
        f"{len(names)} keys {what} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for what, names in complaints.items()
        if names
    ]
    if found:
        raise InputError(f"{source} do not fit: {'; '.join(found)}")
    module.load_state_dict(dict(weights))
