"""Checkpoints of few trained parameters: what they leave out, and how it comes back."""

from collections.abc import Mapping

from torch import Tensor, nn

from etadlite.base.errors import InputError
from etadlite.base.weights import fingerprint, load_exactly
from etadlite.encoders.few import merge_adapters


def base_weights(encoder: nn.Module) -> tuple[set[str], str]:
    """Return what of an encoder is not trained: its names in the system, and its SHA-256."""
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    names = encoder.state_dict().keys() - trained
    return {f"encoder.{name}" for name in names}, fingerprint(encoder, names)


def load_beside_base(
    system: nn.Module, weights: Mapping[str, Tensor], base: str, source: str
) -> None:
    """Load weights that were trained beside a base, which a system has, and merge adapters.

    Raises:
        InputError: the system has another base, or the weights do not fit it.
    """
    encoder = system.get_submodule("encoder")
    names, ours = base_weights(encoder)
    if ours != base:
        raise InputError(
            f"{source} was trained beside other weights than those that encoder.weights names: "
            f"what was not trained has the SHA-256 {ours[:16]}... instead of {base[:16]}...; give "
            "the weights that the training began with"
        )
    own = {name: value for name, value in system.state_dict().items() if name in names}
    load_exactly(system, own | dict(weights), source)
    merge_adapters(encoder)
