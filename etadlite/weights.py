"""Weights into modules, and nothing silently left out."""

from collections.abc import Mapping

from torch import Tensor, nn

from etadlite.errors import InputError


def load_exactly(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load all of `weights` into `module`.

    Raises:
        InputError: naming `source` and the keys that are missing, left over or of the wrong shape.
    """
    expected = module.state_dict()
    complaints = {
        "missing": [name for name in expected if name not in weights],
        "left over": [name for name in weights if name not in expected],
        "of the wrong shape": [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
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
