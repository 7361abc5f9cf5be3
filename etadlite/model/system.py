"""Encoder and detector as one system, and its weights on disk."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from etadlite.base.devices import use_bf16
from etadlite.base.draws import Draws
from etadlite.base.errors import InputError
from etadlite.base.weights import load_exactly, load_weights, save_weights
from etadlite.config import EncoderSettings, Settings, read_settings
from etadlite.detector import DetectorOutput, ETADDetector, valid_proposals
from etadlite.encoders import R2Plus1D, StagedEncoder, freeze, tiny_encoder
from etadlite.encoders.speed import (
    Variant,
    compile_parts,
    fastest,
    gradient_agrees,
    seconds_a_pass,
    use_layout,
)
from etadlite.model.sequential_encoder import SequentialEncoder
from etadlite.sampling.proposals import PROPOSAL_STRATEGIES, ProposalContext, proposal_count
from etadlite.sampling.snippets import SNIPPET_STRATEGIES


def build_encoder(settings: EncoderSettings, *, pretrained: bool = True) -> StagedEncoder:
    """The video encoder that the settings name, by default with the weights that they name."""
    if settings.name == "tiny":
        encoder = tiny_encoder(pretrained=pretrained and settings.weights is None)
    else:
        encoder = freeze(R2Plus1D(int(settings.name[-2:])), settings.frozen_stages)
    if pretrained and settings.weights is not None:
        weights, _ = load_weights(settings.weights)
        load_exactly(encoder, weights, str(settings.weights))
    if settings.channels_last is not None:
        use_layout(encoder, settings.channels_last)
    return compile_parts(encoder) if settings.compile else encoder


def settle_speed(settings: Settings, device: torch.device) -> Settings:
    """The settings with what is fastest on this device in place of `auto`.

    Precision and layout of R(2+1)D are measured on one snippet; the tiny encoder is made for fp32
    in its own layout. Whatever was asked for by name stays.
    """
    encoder, precision = settings.encoder, settings.training.precision
    layouts = (False, True) if encoder.channels_last is None else (encoder.channels_last,)
    precisions = ("fp32", "bf16") if precision == "auto" else (precision,)
    variants = tuple(Variant(p, layout) for p in precisions for layout in layouts)
    if encoder.name == "tiny" or settings.data.features is not None or device.type == "mps":
        best = Variant(precisions[0], encoder.channels_last)
    elif len(variants) == 1:
        best = variants[0]
    else:
        size = (1, 3, settings.data.frames, settings.data.crop, settings.data.crop)
        frames = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
        probe = build_encoder(encoder, pretrained=False).to(device).eval()
        seconds = seconds_a_pass(probe, frames, variants)
        best = fastest(seconds)
        if best.precision != variants[0].precision and not gradient_agrees(probe, frames, best):
            best = fastest({v: s for v, s in seconds.items() if v.precision == "fp32"})
    chosen = {"precision": best.precision}, {"channels_last": best.channels_last}
    return settings.model_copy(
        update={
            "training": settings.training.model_copy(update=chosen[0]),
            "encoder": encoder.model_copy(update=chosen[1]),
        }
    )


class System(nn.Module):
    """Snippets or features in, scored proposals out.

    Attributes:
        encoder: the `SequentialEncoder`; None where features are given.
        detector: the `ETADDetector`.
        proposals: [P, 2] all valid proposals, in cells.
    """

    proposals: Tensor

    def __init__(self, settings: Settings, *, pretrained: bool = True) -> None:
        super().__init__()
        sampling, detector = settings.sampling, settings.detector
        self.encoder = None
        if settings.data.features is None:
            encoder = build_encoder(settings.encoder, pretrained=pretrained)
            self.encoder = SequentialEncoder(
                encoder,
                settings.encoder.chunk_size,
                SNIPPET_STRATEGIES[sampling.snippet_strategy],
                sampling.snippet_ratio,
                rescale=sampling.rescale,
                keep=settings.encoder.keep_prefix,
            )
            if encoder.channels != detector.in_channels:
                raise InputError(
                    f"the encoder {settings.encoder.name} gives {encoder.channels} channels, but "
                    f"detector.in_channels is {detector.in_channels}; set them equal"
                )
        self.detector = ETADDetector(
            detector.in_channels,
            width=detector.width,
            layout=detector.layout,
            roi_size=detector.roi_size,
            hidden=detector.hidden,
            head=detector.head,
            num_stages=len(settings.losses.stage_positive_iou),
            num_classes=len(detector.classes),
        )
        self.sampling = sampling
        self.precision = settings.training.precision
        self.detector_precision = detector.precision
        proposals = valid_proposals(settings.data.snippets, detector.max_duration)
        self.register_buffer("proposals", proposals, persistent=False)

    def features(
        self,
        inputs: Tensor,
        draws: Draws | None = None,
        actions: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Features [B, C, T] of snippets uint8 [B, N, 3, F, H, W], or of features as they are."""
        device = self.proposals.device
        if self.encoder is None:
            return inputs.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(self.precision, device)):
            return self.encoder(inputs, draws, actions)

    def sample_proposals(self, draws: Draws, actions: Sequence[Tensor]) -> Tensor:
        """The proposals [B, P, 2] that one training step evaluates."""
        count = proposal_count(len(self.proposals), self.sampling.proposal_ratio)
        context = ProposalContext(draws, self.proposals, actions)
        return PROPOSAL_STRATEGIES[self.sampling.proposal_strategy](context, count)

    def forward(
        self,
        inputs: Tensor,
        proposals: Tensor | None = None,
        draws: Draws | None = None,
        actions: Sequence[Tensor] | None = None,
    ) -> DetectorOutput:
        """Evaluate the given proposals [B, P, 2], by default all valid ones.

        Args:
            inputs: snippets uint8 [B, N, 3, F, H, W], or features [B, C, T].
            proposals: [B, P, 2] in cells.
            draws: the videos' random streams, for the choice of snippets; None: fresh ones.
            actions: for each video [A, 2] in cells, for strategies that need labels.
        """
        if proposals is None:
            proposals = self.proposals.expand(len(inputs), -1, -1)
        features = self.features(inputs, draws, actions)
        device, half_precise = features.device.type, self.detector_precision == "bf16"
        with torch.autocast(device, torch.bfloat16, enabled=half_precise):
            return self.detector(features, proposals)


def save_checkpoint(path: Path, system: System, settings: Settings) -> None:
    """Write the system's weights, with the settings beside them, as safetensors."""
    save_weights(path, system, {"settings": settings.model_dump_json()})


def checkpoint_settings(path: Path) -> Settings:
    """The settings that a checkpoint was trained with.

    Raises:
        InputError: the file is absent, broken, or no checkpoint of a run.
    """
    _, metadata = load_weights(path)
    if "settings" not in metadata:
        raise InputError(f"{path} holds weights but no settings: it is no checkpoint of a run")
    try:
        tree = json.loads(metadata["settings"])
    except json.JSONDecodeError:
        raise InputError(f"{path} holds settings that are no JSON: copy it again") from None
    return read_settings(tree, str(path))


def load_checkpoint(path: Path, settings: Settings) -> System:
    """Build the system of `settings` with the weights of a checkpoint.

    The checkpoint is one of a run, or a published one as `etadlite convert` writes it.

    Raises:
        InputError: the checkpoint is of another model: the settings, or else the weights, that
            differ are named.
    """
    weights, metadata = load_weights(path)
    if "family" not in metadata:  # of a run, so it says how it was trained
        ours, theirs = _model_settings(settings), _model_settings(checkpoint_settings(path))
        different = [
            f"{name} is {theirs[name]} there and {ours[name]} here"
            for name in ours
            if ours[name] != theirs[name]
        ]
        if different:
            raise InputError(f"{path} is a checkpoint of another config: {'; '.join(different)}")
    system = System(settings, pretrained=False)
    load_exactly(system, weights, str(path))
    return system


def _model_settings(settings: Settings) -> dict[str, object]:
    """What the weights depend on."""
    tree = settings.detector.model_dump(exclude={"precision"})
    detector = {f"detector.{k}": v for k, v in tree.items()}
    return detector | {
        "data.snippets": settings.data.snippets,
        "encoder.name": "features" if settings.data.features else settings.encoder.name,
        "stages": len(settings.losses.stage_positive_iou),
    }
