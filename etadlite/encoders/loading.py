"""Load weights into an encoder: those of a file, or published ones by their name."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from etadlite.base.weights import load_exactly, load_weights
from etadlite.encoders.staged import StagedEncoder


def load_named(encoder: StagedEncoder, name: str, weights: Path) -> None:
    """Load the weights that the settings name into the encoder of this name.

    Raises:
        InputError: they cannot be read or fetched, or belong to another encoder.
    """
    if weights.suffix or weights.is_file():
        state_dict, _ = load_weights(weights)
        load_published(encoder, state_dict, str(weights))
    else:
        from etadlite.encoders.published import fetched

        published = fetched(name, str(weights), encoder.configuration)
        load_published(encoder, published, f"the weights {weights} of {name}")


def load_published(encoder: StagedEncoder, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights with the encoder's own names, or with those of the network it is made from.

    Raises:
        InputError: keys are missing, left over or of the wrong shape.
    """
    names = encoder.published
    if encoder.translate is not None and not encoder.state_dict().keys() & weights.keys():
        weights = encoder.translate(weights)
    ours: dict[str, str] = {}
    if names.keys() & weights.keys():
        ours, heads = {ours: theirs for theirs, ours in names.items()}, encoder.published_heads
        weights = {names.get(n, n): v for n, v in weights.items() if n not in heads}
    load_exactly(encoder, weights, source, lambda name: ours.get(name, name))
