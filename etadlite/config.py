"""Settings: one tree, checked when it is made, frozen afterwards."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

from pydantic import BaseModel, ByteSize, Field, ValidationError, ValidationInfo, field_validator

from etadlite.base.errors import InputError, did_you_mean, nearest
from etadlite.base.files import parse_json
from etadlite.base.names import inside

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the tree: frozen; it refuses unknown names and numbers that are not finite."""

    model_config = {
        "frozen": True,
        "extra": "forbid",
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
    }


class DataSettings(Section):
    """Which videos to read, and how to cut them into snippets."""

    annotations: Path
    """ActivityNet JSON with all subsets."""
    videos: Path | None = None
    """Folder of videos NAME + suffix, in any format that the decoder can open."""
    features: Path | None = None
    """Folder of NAME.npy [T, C] (or .npz, .h5), or one .npz or .h5 that holds all videos by name;
    if given, no video is read."""
    feature_views: Count = 1
    """Feature files per training video: NAME.npy, NAME.1.npy, ...; one is drawn."""
    train_subset: str = "training"
    """Subset of the annotations that is trained on."""
    test_subset: str = "validation"
    """Subset of the annotations that is tested on."""
    min_action: Share = 0.0
    """Training drops actions that are at most this share of their video."""
    snippets: Count = 128
    """N snippets per video or window; also T cells."""
    frames: Count = 16
    """F frames per snippet."""
    frame_step: Count = 1
    """Distance between two frames of a snippet, in frames at the file's mean rate."""
    snippet_rule: Literal["cells", "ends"] = "cells"
    """`cells`: snippets in the middles of cells; `ends`: from first to last frame, as published."""
    decode_size: tuple[Count, Count] = (128, 171)
    """Height, width of decoded frames in pixels."""
    resize: Literal["decoder", "after"] = "decoder"
    """`decoder`: decode at decode_size; `after`: resize later, as published."""
    decoder: Literal["auto", "pyav", "decord", "torchcodec"] = "auto"
    """Library that reads videos, or refuses those that it would read wrongly; `auto`: PyAV."""
    crop: Count = Field(112, validate_default=True)
    """Side of the square crop, in pixels."""
    flip: bool = True
    """Flip half of the training videos left to right."""
    jitter: Share = 0.2
    """Strength of colour augmentation in training."""
    cache: Path | None = None
    """Folder that stores decoded frames; for small data sets."""
    as_published: bool = False
    """Accept a published file with actions of no length or beyond the end of their video."""
    blocked: Path | tuple[str, ...] = ()
    """Videos to leave out everywhere: names, or a JSON file with a list of names."""
    allow_missing: bool = False
    """Leave out videos that have no file, with a warning."""
    window_stride: Count | None = None
    """Frames, as the annotations count them, from one snippet to the next; if given, samples are
    windows, not whole videos."""
    window_offset: int = Field(0, ge=0)
    """Frames from the start of a snippet to the moment it describes."""
    window_overlap: float = Field(0.5, ge=0.5, lt=1)
    """Share of a window that the next window repeats."""
    window_inside: Share = 0.9
    """Training windows keep an action if more than this share of it lies inside."""
    workers: int = Field(2, ge=0, le=1024)
    """Processes that load data; 0: the main process loads."""

    @field_validator("crop")
    @classmethod
    def _crop_lies_inside(cls, crop: int, others: ValidationInfo) -> int:
        size = others.data.get("decode_size")
        if size and crop > min(size):
            raise ValueError(f"it is larger than data.decode_size {list(size)}")
        return crop


class Expected(NamedTuple):
    """What an encoder gives, and what it expects of its snippets."""

    channels: int  # C of its features
    frames: int  # of a snippet
    crop: int  # side of the square crop, in pixels
    decode_size: tuple[int, int]  # height and width of decoded frames

    def assignments(self) -> list[str]:
        """Return the settings that follow from the encoder."""
        return [
            f"detector.in_channels={self.channels}",
            f"data.frames={self.frames}",
            f"data.crop={self.crop}",
            f"data.decode_size={list(self.decode_size)}",
        ]


_SMALL, _LARGE = (112, (128, 171)), (224, (256, 342))

ENCODERS = {
    "tiny": Expected(48, 8, 48, (52, 52)),
    "r2plus1d_18": Expected(512, 16, *_SMALL),
    "r2plus1d_34": Expected(512, 16, *_SMALL),
    "r3d_18": Expected(512, 16, *_SMALL),
    "mc3_18": Expected(512, 16, *_SMALL),
    "s3d": Expected(1024, 16, *_LARGE),
    "mvit_v1_b": Expected(768, 16, *_LARGE),
    "mvit_v2_s": Expected(768, 16, *_LARGE),
    "swin3d_t": Expected(768, 16, *_LARGE),
    "swin3d_s": Expected(768, 16, *_LARGE),
    "swin3d_b": Expected(1024, 16, *_LARGE),
    "videomae_b": Expected(768, 16, *_LARGE),
    "videomae_l": Expected(1024, 16, *_LARGE),
    "videomaev2_b": Expected(768, 16, *_LARGE),
    "timesformer_b": Expected(768, 8, *_LARGE),
    "vivit_b": Expected(768, 32, *_LARGE),
    "vjepa2_l": Expected(1024, 16, 256, (292, 389)),
}
"""The video encoders by name."""


class EncoderSettings(Section):
    """The video encoder."""

    name: str = "r2plus1d_34"
    """A name that `etadlite encoders` lists, image:NAME of torchvision, timm:NAME, or
    package.module:factory for a module of your own."""
    weights: Path | None = None
    """Safetensors file, or the name of published weights, such as kinetics400 or imagenet; None:
    shipped weights (tiny) or random ones."""
    frozen_stages: int | None = Field(2, ge=0)
    """Frozen stages after the frozen first one; None: nothing is frozen, as always in tiny."""
    train: Literal["all", "norms", "head", "adapters"] = "all"
    """What is trained after the frozen stages: all; scales and shifts of norms; the last stage; or
    low-rank adapters; see etadlite.encoders.few."""
    adapter_rank: Count = 8
    """`train=adapters`: their channels; more of them learn more."""
    adapter_layers: tuple[str, ...] = ()
    """`train=adapters`: layers that have one, by name or by a part of it, such as layer4; none: all
    linear and convolution layers."""
    adapter_kind: Literal["lora", "bottleneck"] = "lora"
    """`train=adapters`: `lora`: low-rank, beside a layer, merged for inference; `bottleneck`: two
    layers with a ReLU between them, behind a layer."""
    frozen_dtype: Literal["fp32", "bf16"] = "fp32"
    """`train` other than all: dtype of the linear and convolution weights that are not trained;
    `bf16` halves their memory, rounds them, and computes in bf16."""
    temporal_shift: bool = False
    """Image networks: let the frames of a snippet see their neighbours (TSM)."""
    chunk_size: Count | None = 4
    """Snippets encoded at once; None: as many as fit into training.memory."""
    checkpointing: bool | None = False
    """Compute each block of the trained stages twice instead of keeping its activations (gradient
    checkpointing); None: where training.memory asks for it."""
    keep_prefix: Literal["device", "host", "nothing", "graph"] = "device"
    """Where the frozen stages' output for sampled snippets is kept, so that it is computed once;
    `graph`: with all activations behind it, so that these snippets are encoded once in all."""
    channels_last: bool | None = None
    """Memory layout of R(2+1)D; None: measured, like precision=auto."""
    compile: bool = False
    """Use torch.compile; this takes a minute at the start."""

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        if name not in ENCODERS and ":" not in name:
            near, names = did_you_mean(name, ENCODERS), ", ".join(map(repr, ENCODERS))
            raise ValueError(
                f"there is no such encoder{near}; choose {names}, 'image:NAME' of torchvision, "
                "'timm:NAME', or 'package.module:factory'"
            )
        return name


class DetectorSettings(Section):
    """The detector; see `etadlite.detector.ETADDetector`."""

    layout: Literal["released", "opentad"] = "released"
    """Layers as in the released ETAD code, or as in OpenTAD."""
    in_channels: int = Field(512, ge=4, multiple_of=4)
    """C of the features."""
    width: int = Field(256, ge=32, multiple_of=32)
    """Channels of the temporal layers."""
    roi_size: int = Field(24, ge=4, multiple_of=4)
    """Bins of RoIAlign."""
    hidden: Count = 512
    """Width of a stage's shared layer."""
    head: Count = 128
    """Width of a stage's heads."""
    max_duration: Count = 128
    """Longest proposal in cells."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Dtype of its layers; scores, refinement and losses are fp32."""
    classes: tuple[str, ...] = ()
    """Classes that the detector predicts; none: an external classifier does."""


class SamplingSettings(Section):
    """Which snippets carry a gradient, and which proposals are trained."""

    snippet_ratio: Share = 0.3
    """Share of the snippets; 0: the encoder stays frozen."""
    snippet_strategy: Literal[
        "random",
        "grid",
        "block",
        "farthest",
        "kdpp",
        "foreground",
        "boundary",
        "background",
        "gradient_norm",
    ] = "random"
    """How the snippets are chosen; see etadlite.sampling.snippets."""
    rescale: bool = False
    """Weight a snippet by 1 / its probability: the gradient is the full one on average.
    gradient_norm always does, the published code does not."""
    others: Literal["encode", "bank"] = "encode"
    """The other snippets' features: `encode`: computed without gradient in every step; `bank`: from
    the last step that computed them, which saves their encoding; see etadlite.training.bank."""
    proposal_ratio: float = Field(0.06, gt=0, le=1)
    """Share of the valid proposals."""
    proposal_strategy: Literal[
        "random", "grid", "block", "iou_balanced", "scale_balanced", "farthest", "kdpp"
    ] = "random"
    """How the proposals are chosen; see etadlite.sampling.proposals."""


class LossSettings(Section):
    """Weights and thresholds of the losses."""

    stage_positive_iou: tuple[Share, ...] = Field((0.7, 0.8, 0.9), min_length=1)
    """Per stage, the tIoU above which it regresses offsets."""
    iou_positive: Share = 0.9
    """tIoU above which a proposal counts as an action."""
    iou_class_weight: float = 1.0
    """Weight of the loss of classifying proposals by their tIoU."""
    iou_value_weight: float = 5.0
    """Weight of the loss of the predicted tIoU."""
    offset_weight: float = 10.0
    """Weight of the loss of the offsets of a proposal's ends."""
    boundary_weight: float = 0.5
    """Weight of the loss of the starts and ends."""
    class_weight: float = 1.0
    """Weight of the loss of the classes, where the detector predicts them."""
    guarded: bool = True
    """Draw negatives from the negatives only; the published code does not."""


class TrainingSettings(Section):
    """The optimiser and its schedule."""

    epochs: Count = 6
    """Passes over the training videos."""
    batch_size: Count = 4
    """Videos per step over all processes: learning rates fit any number of processes."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """`adam` adds the weight decay to the gradient."""
    detector_lr: float = Field(5e-4, gt=0)
    """Learning rate of the detector."""
    encoder_lr: float = Field(5e-7, ge=0)
    """Learning rate of the encoder."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of the optimiser."""
    schedule: Literal["step", "cosine"] = "step"
    """Learning rates over time: one step down, or half a cosine wave."""
    step_epoch: Count = 5
    """`schedule=step`: epoch that divides the rates by ten."""
    warmup_epochs: float = Field(0, ge=0)
    """Epochs of linear warm-up."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest gradient norm; None: no clip."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Dtype of the encoder (the detector has its own); auto: measured when a training starts."""
    memory: ByteSize | None = Field(None, gt=0)
    """Budget that decides encoder.chunk_size where that is None: bytes, or 6GB, 800MiB, ..."""
    test_every: int = Field(0, ge=0)
    """Epochs between tests; 0: only after the last."""
    checkpoint_minutes: float = Field(10, ge=0)
    """Minutes between saved states; every epoch ends with one, too."""
    patience_minutes: float = Field(30, gt=0)
    """Minutes that a process waits for the others before the run ends."""
    max_unreadable: Share = 0.1
    """Share of unreadable videos above which the run ends."""


class InferenceSettings(Section):
    """From scored proposals to detections."""

    boundary_mask: bool = True
    """Keep proposals whose start and end are boundary peaks or above half."""
    nms_sigma: float = Field(0.35, gt=0)
    """Sigma of Gaussian soft-NMS."""
    nms_voting: Share = 0.0
    """tIoU from which segments vote on the position of a kept one; 0: no voting."""
    min_score: Share = 0.0
    """Soft-NMS stops at scores below this."""
    max_detections: Count = 100
    """Segments kept per video or window, before they get classes."""
    keep_last: bool = True
    """Soft-NMS keeps the last segment; the released code loses it."""
    keep_outside: bool = False
    """Keep proposals outside their video, as released; cut at its ends, they have no length."""
    classifier: Path | None = None
    """File of video-level class scores, which give the segments their classes."""
    classifier_kind: Literal["cuhk", "untrimmednet", "scores"] = "scores"
    """Format of the classifier's file."""
    classes_per_segment: Count = 2
    """Best classes that each segment gets."""
    tiou: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        tuple(round(0.5 + 0.05 * i, 2) for i in range(10)), min_length=1
    )
    """Thresholds of mAP."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Actions that are annotated twice: `keep`, as the official evaluation; `drop`, as OpenTAD."""


class Settings(Section):
    """Everything that a run depends on, except code and data."""

    name: str
    """The preset's name; also the name of the folder of its runs."""
    seed: int = Field(0, ge=0)
    """Seed of weights, sampling, order and augmentation."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; `auto`: an NVIDIA GPU, else an Apple chip, else the CPU."""
    data: DataSettings
    encoder: EncoderSettings = EncoderSettings()
    detector: DetectorSettings = DetectorSettings()
    sampling: SamplingSettings = SamplingSettings()
    losses: LossSettings = LossSettings()
    training: TrainingSettings = TrainingSettings()
    inference: InferenceSettings = InferenceSettings()

    @property
    def encoder_precision(self) -> str:
        """`training.precision`, or bf16 where frozen weights are kept in it."""
        return "bf16" if self.encoder.frozen_dtype == "bf16" else self.training.precision

    @field_validator("name")
    @classmethod
    def _name_stays_inside(cls, name: str) -> str:
        inside(Path("the folder of its runs"), name)
        return name

    def changed(self, changes: Sequence[str] | Mapping[str, Any]) -> "Settings":
        """Return checked settings in which some values differ.

        Changes are texts `section.key=value`, whose values are JSON or plain text, or a mapping.

        Raises:
            InputError: a text has no "=", a name is no setting, or a value does not fit.
        """
        pairs = changes.items() if isinstance(changes, Mapping) else map(_parsed, changes)
        tree = self.model_dump()
        known = flat(tree)
        for name, value in pairs:
            if name not in known:
                _refuse_unknown(name, known)
            section, _, leaf = name.rpartition(".")
            place = tree[section] if section else tree
            place[leaf] = value
        return read_settings(tree, "these settings")


def read_settings(tree: Any, source: str) -> Settings:
    """Return a tree of plain values, or its JSON text, as checked settings.

    Raises:
        InputError: it names `source`, the setting and what is wrong with it.
    """
    if isinstance(tree, str):
        tree = parse_json(tree, f"{source}: its text of settings", "settings")
    if not isinstance(tree, Mapping):
        raise InputError(f"{source} is no JSON object of settings")
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        reason = f"{reason[0].lower()}{reason[1:]}"
        raise InputError(
            f"{source}: {name} = {short(first['input'])} does not fit: {reason}"
        ) from None


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree of settings as `section.key` -> value."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        is_section = isinstance(value, Mapping)
        leaves |= flat(value, f"{prefix}{name}.") if is_section else {prefix + name: value}
    return leaves


def _parsed(assignment: str) -> tuple[str, Any]:
    name, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f'"{assignment}" is no assignment; write section.key=value')
    try:
        return name, parse_json(text, name)
    except InputError:
        return name, text


def _refuse_unknown(name: str, names: Iterable[str]) -> NoReturn:
    leaves = {full.rpartition(".")[2]: full for full in names}
    leaf = nearest(name.rpartition(".")[2], leaves)  # perhaps only the section is wrong
    near = nearest(name, names) or (leaf and leaves[leaf])
    hint = f'; did you mean "{near}"?' if near else f"; there are {', '.join(names)}"
    raise InputError(f'there is no setting "{name}"{hint}')
