"""The system: an encoder, unless features are given, and a detector."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from etadlite.base.devices import require_memory, use_bf16
from etadlite.base.draws import Draws
from etadlite.base.errors import InputError, damage_named
from etadlite.config import Settings
from etadlite.detector import DetectorOutput, ETADDetector, valid_proposals
from etadlite.encoders.build import build_encoder
from etadlite.model.sequential_encoder import Recalled, SequentialEncoder
from etadlite.sampling.proposals import PROPOSAL_STRATEGIES, ProposalContext, proposal_count
from etadlite.sampling.snippets import SNIPPET_STRATEGIES


class System(nn.Module):
    """Snippets or features in, scored proposals out.

    Where videos are encoded, the settings need `encoder.chunk_size`.
    """

    proposals: Tensor  # [P, 2] all valid proposals, in cells

    def __init__(self, settings: Settings, *, pretrained: bool = True) -> None:
        super().__init__()
        self.sampling = settings.sampling
        self.precision = settings.encoder_precision
        self.detector_precision = settings.detector.precision
        self.encoder = None  # where features are given; else a `SequentialEncoder`
        if settings.data.features is None:
            self.encoder = _sequential_encoder(settings, pretrained=pretrained)
        self.detector = _detector(settings)
        proposals = valid_proposals(settings.data.snippets, settings.detector.max_duration)
        self.register_buffer("proposals", proposals, persistent=False)

    def features(
        self,
        inputs: Tensor,
        draws: Draws | None = None,
        actions: Sequence[Tensor] | None = None,
        recalled: Recalled | None = None,
    ) -> Tensor:
        """Return features [B, C, T] of snippets uint8 [B, N, 3, F, H, W]; given features stay."""
        device = self.proposals.device
        if self.encoder is None:
            return inputs.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(self.precision, device)):
            return self.encoder(inputs, draws, actions, recalled)

    def sample_proposals(self, draws: Draws, actions: Sequence[Tensor]) -> Tensor:
        """Draw the proposals [B, P, 2] that one training step evaluates."""
        count = proposal_count(len(self.proposals), self.sampling.proposal_ratio)
        context = ProposalContext(draws, self.proposals, actions)
        return PROPOSAL_STRATEGIES[self.sampling.proposal_strategy](context, count)

    def forward(
        self,
        inputs: Tensor,
        proposals: Tensor | None = None,
        draws: Draws | None = None,
        actions: Sequence[Tensor] | None = None,
        recalled: Recalled | None = None,
    ) -> DetectorOutput:
        """Evaluate proposals [B, P, 2] in cells, by default all valid ones.

        The inputs are snippets uint8 [B, N, 3, F, H, W], or features [B, C, T]. For `draws`,
        `actions` and `recalled` see `SequentialEncoder.forward`.
        """
        if proposals is None:
            proposals = self.proposals.expand(len(inputs), -1, -1)
        features = self.features(inputs, draws, actions, recalled)
        bf16 = self.detector_precision == "bf16"
        with torch.autocast(features.device.type, torch.bfloat16, enabled=bf16):
            return self.detector(features, proposals)


def require_room(settings: Settings) -> None:
    """Refuse a system of which memory cannot hold weights, proposals and the input of one video.

    Raises:
        InputError: it names the settings, and the memory that they need at least.
    """
    data, detector = settings.data, settings.detector
    with damage_named("the detector cannot be built", "make it smaller"), torch.device("meta"):
        weights = sum(value.numel() for value in _detector(settings).parameters())
    snippet = 4 * detector.in_channels + 24 * detector.max_duration  # features, map of proposals
    if data.features is None:
        snippet += 3 * data.frames * prod(data.decode_size)
    sizes = f"data.snippets={data.snippets}, data.frames={data.frames}, data.decode_size="
    sizes += f"{list(data.decode_size)}, detector.max_duration={detector.max_duration} and "
    sizes += f"detector.width={detector.width} need memory"
    require_memory(4 * weights + data.snippets * snippet, sizes)


def _detector(settings: Settings) -> ETADDetector:
    detector = settings.detector
    return ETADDetector(
        detector.in_channels,
        width=detector.width,
        layout=detector.layout,
        roi_size=detector.roi_size,
        hidden=detector.hidden,
        head=detector.head,
        num_stages=len(settings.losses.stage_positive_iou),
        num_classes=len(detector.classes),
    )


def _sequential_encoder(settings: Settings, *, pretrained: bool) -> SequentialEncoder:
    encoder = build_encoder(settings.encoder, pretrained=pretrained)
    if settings.encoder.name != "tiny" and not settings.encoder.name.startswith("r2plus1d_"):
        from etadlite.encoders.objects import try_encoder  # the others take any size

        try_encoder(encoder, settings.data, settings.encoder.name)
    if encoder.channels != settings.detector.in_channels:
        raise InputError(
            f"the encoder {settings.encoder.name} gives {encoder.channels} channels, but "
            f"detector.in_channels is {settings.detector.in_channels}; set them equal"
        )
    if settings.encoder.chunk_size is None:
        raise InputError("encoder.chunk_size is null: set it, for example encoder.chunk_size=4")
    return SequentialEncoder(
        encoder,
        settings.encoder.chunk_size,
        SNIPPET_STRATEGIES[settings.sampling.snippet_strategy],
        settings.sampling.snippet_ratio,
        rescale=settings.sampling.rescale,
        keep=settings.encoder.keep_prefix,
    )
