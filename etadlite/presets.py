"""Presets: functions that return complete settings."""

from collections.abc import Callable, Sequence
from pathlib import Path

from etadlite.base.errors import InputError, did_you_mean
from etadlite.base.files import read_json
from etadlite.config import (
    ENCODERS,
    DataSettings,
    DetectorSettings,
    EncoderSettings,
    InferenceSettings,
    LossSettings,
    SamplingSettings,
    Settings,
    TrainingSettings,
    flat,
    read_settings,
)
from etadlite.stickfigures.classes import CLASSES

DATA = Path("data")
STICKFIGURES = DATA / "stickfigures"
ACTIVITYNET = DATA / "activitynet-1.3"
THUMOS = DATA / "thumos-14"
REAL_SMALL = DATA / "real_small"
PRETRAINED = DATA / "pretrained"


def e2e_stickfigures() -> Settings:
    """Generated videos, tiny encoder trained end to end: the course on a laptop."""
    return Settings(
        name="e2e_stickfigures",
        data=DataSettings(
            annotations=STICKFIGURES / "annotations.json",
            videos=STICKFIGURES / "videos",
            cache=STICKFIGURES / "frames",
            snippets=64,
            frames=8,
            decode_size=(52, 52),
            crop=48,
            flip=False,  # left and right tell some classes apart
            workers=0,
        ),
        encoder=EncoderSettings(name="tiny", frozen_stages=0, chunk_size=16),
        detector=DetectorSettings(
            in_channels=48,
            width=64,
            roi_size=16,
            hidden=128,
            head=64,
            max_duration=32,
            classes=CLASSES,
        ),
        sampling=SamplingSettings(snippet_ratio=0.3, proposal_ratio=0.25),
        training=TrainingSettings(
            epochs=12,
            batch_size=2,
            detector_lr=2e-3,
            encoder_lr=5e-4,  # at 2e-3 the encoder forgets the studio before it learns the rest
            schedule="cosine",
            warmup_epochs=1,
            clip_norm=10.0,
            test_every=4,
        ),
        losses=LossSettings(class_weight=5.0),
        inference=InferenceSettings(tiou=(0.3, 0.4, 0.5, 0.6, 0.7)),
    )


def stickfigures() -> Settings:
    """Generated videos as features of the frozen tiny encoder: what end to end is compared with."""
    return e2e_stickfigures().changed(
        {
            "name": "stickfigures",
            "data.features": STICKFIGURES / "features",
            "data.feature_views": 4,
        }
    )


def anet_tsp() -> Settings:
    """ActivityNet-1.3 on TSP features, as in the released ETAD code (average mAP 37.80).

    The released code means to drop short actions but never does; `data.min_action=0` keeps them,
    too.
    """
    return Settings(
        name="anet_tsp",
        data=DataSettings(
            annotations=ACTIVITYNET / "annotations" / "activity_net.v1-3.min.json",
            features=ACTIVITYNET / "features" / "anet_tsp_npy_unresize",
            min_action=0.01,
            as_published=True,
            blocked=ACTIVITYNET / "annotations" / "blocked.json",
            workers=4,
        ),
        training=TrainingSettings(epochs=6, batch_size=16, detector_lr=1e-3, step_epoch=5),
        inference=InferenceSettings(
            classifier=ACTIVITYNET / "classifiers" / "cuhk_val_simp_7.json",
            classifier_kind="cuhk",
        ),
    )


def e2e_anet_tsp() -> Settings:
    """ActivityNet-1.3 videos with TSP's encoder trained, as released (average mAP 38.73).

    The videos have 15 frames per second and a short side of 256. The rule `ends` counts frames, as
    published; at this constant rate frames are times. Two things differ from the released code:
    colour augmentation changes brightness, contrast and saturation only, and frames are neither
    rotated nor sheared.
    """
    return anet_tsp().changed(
        {
            "name": "e2e_anet_tsp",
            "data.features": None,
            "data.videos": ACTIVITYNET / "raw_data" / "Anet_videos_15fps_short256",
            "data.snippet_rule": "ends",
            "data.jitter": 0.5,
            "encoder.weights": PRETRAINED / "r2plus1d_34_tsp_anet.safetensors",
            "sampling.snippet_ratio": 40 / 128,  # 0.3, rounded up to whole chunks of 4
            "training.batch_size": 4,
            "training.detector_lr": 5e-4,
            "training.encoder_lr": 5e-7,
        }
    )


def thumos_i3d() -> Settings:
    """THUMOS-14 on I3D features in windows, as in OpenTAD (average mAP 55.56).

    Windows count frames as the annotations do. A video is read at the moments of these frames.
    """
    return Settings(
        name="thumos_i3d",
        data=DataSettings(
            annotations=THUMOS / "annotations" / "thumos_14_anno.json",
            features=THUMOS / "features" / "i3d_actionformer_stride4_thumos",
            as_published=True,  # some actions start after the end of their video
            blocked=("video_test_0000270", "video_test_0001292"),  # published tests leave them out
            window_stride=4,
            window_offset=8,
            window_overlap=0.5,
            window_inside=0.9,
        ),
        detector=DetectorSettings(
            layout="opentad", in_channels=2048, roi_size=16, hidden=256, max_duration=64
        ),
        sampling=SamplingSettings(proposal_ratio=0.1),
        training=TrainingSettings(
            optimizer="adam", epochs=8, batch_size=16, detector_lr=1e-4, step_epoch=5, clip_norm=1.0
        ),
        inference=InferenceSettings(
            nms_sigma=0.3,
            nms_voting=0.95,
            min_score=1e-4,
            max_detections=200,
            classifier=THUMOS / "classifiers" / "uNet_test.npy",
            classifier_kind="untrimmednet",
            tiou=(0.3, 0.4, 0.5, 0.6, 0.7),
        ),
    )


def e2e_thumos_tsp() -> Settings:
    """THUMOS-14 videos in windows with TSP's encoder trained (this project's; no published number).

    Windows, detector and test are those of `thumos_i3d`; the encoder and its learning rate are
    those of `e2e_anet_tsp`. TSP saw 16 frames at 15 per second, which is every second frame of
    these videos, so the middle of a snippet lies 16 frames after its start.
    """
    encoded = e2e_anet_tsp()
    return thumos_i3d().changed(
        {
            "name": "e2e_thumos_tsp",
            "data.features": None,
            "data.videos": THUMOS / "raw_data" / "video",
            "data.frame_step": 2,
            "data.window_offset": 16,
            "data.jitter": encoded.data.jitter,
            "data.workers": encoded.data.workers,
            "encoder.weights": PRETRAINED / "r2plus1d_34_tsp_thumos.safetensors",
            "detector.in_channels": encoded.detector.in_channels,
            "sampling.snippet_ratio": encoded.sampling.snippet_ratio,
            "training.batch_size": 4,
            "training.encoder_lr": encoded.training.encoder_lr,
        }
    )


def real_small() -> Settings:
    """Real clips joined to short videos, with an ImageNet encoder trained end to end.

    `data_scripts/make_real_small.py` makes the data. A snippet is every third of 12 frames at 15
    per second (this project's; no published number).
    """
    return e2e_stickfigures().changed(
        {
            "name": "real_small",
            "data.annotations": REAL_SMALL / "annotations.json",
            "data.videos": REAL_SMALL / "videos",
            "data.cache": REAL_SMALL / "frames",
            "data.snippets": 32,
            "data.frames": 4,
            "data.frame_step": 3,
            "data.decode_size": (128, 128),
            "data.crop": 112,
            "data.flip": True,
            "encoder.name": "timm:tf_efficientnet_lite0",
            "encoder.weights": "imagenet",
            "encoder.frozen_stages": None,
            "encoder.chunk_size": 8,
            "detector.in_channels": 1280,
            "detector.width": 128,
            "detector.hidden": 256,
            "detector.max_duration": 12,
            "detector.classes": ("handshake", "hug", "kick", "point", "punch", "push"),
            "sampling.proposal_ratio": 1.0,
            "training.epochs": 15,
            "training.batch_size": 1,
            "training.detector_lr": 1e-3,
            "training.encoder_lr": 1e-4,
            "training.test_every": 5,
        }
    )


_ALL = (
    *(stickfigures, e2e_stickfigures, real_small),
    *(anet_tsp, e2e_anet_tsp, thumos_i3d, e2e_thumos_tsp),
)
PRESETS: dict[str, Callable[[], Settings]] = {preset.__name__: preset for preset in _ALL}


def preset(name: str, assignments: Sequence[str] = ()) -> Settings:
    """Return the settings of a preset with assignments as in `Settings.changed`.

    The name may be a JSON file with complete settings, such as a run's config.json.
    A new `encoder.name` also sets what the encoder expects of the data and the detector, unless
    assignments say otherwise.

    Raises:
        InputError: there is no such preset or file, or an assignment does not fit.
    """
    if name.endswith(".json"):
        settings = read_settings(read_json(Path(name), "file of settings"), name)
        return settings.changed([*_following(assignments), *assignments])
    if name not in PRESETS:
        raise InputError(
            f'there is no preset "{name}"{did_you_mean(name, PRESETS)} (there are '
            f"{', '.join(PRESETS)}, or give a file of settings)"
        )
    return PRESETS[name]().changed([*_following(assignments), *assignments])


def _following(assignments: Sequence[str]) -> list[str]:
    """Return the assignments that follow from an encoder's name among the given ones."""
    pairs = (text.partition("=") for text in assignments)
    names = [value for setting, _, value in pairs if setting == "encoder.name"]
    encoder = ENCODERS.get(names[-1]) if names else None
    return encoder.assignments() if encoder else []


def home(settings: Settings) -> Path:
    """Return the folder of a preset's data set, such as data/thumos-14."""
    return Path(*settings.data.annotations.parts[:2])


def placed(settings: Settings, folder: Path) -> Settings:
    """Return a preset's settings with its data set in another folder.

    Paths below the preset's `data/NAME` move into `folder`. Other paths below `data`, such as
    pre-trained weights, move beside `folder`.
    """
    before, moved = home(settings), {}
    for name, path in flat(settings.model_dump()).items():
        if isinstance(path, Path) and path.is_relative_to(DATA):
            if path.is_relative_to(before):
                moved[name] = folder / path.relative_to(before)
            else:
                moved[name] = folder / ".." / path.relative_to(DATA)
    return settings.changed(moved)
