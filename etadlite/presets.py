"""Complete settings by name: each preset is a function that returns them."""

import difflib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from etadlite.base.errors import InputError
from etadlite.config import (
    DataSettings,
    DetectorSettings,
    EncoderSettings,
    InferenceSettings,
    LossSettings,
    SamplingSettings,
    Section,
    Settings,
    TrainingSettings,
    read_settings,
)
from etadlite.stickfigures.classes import CLASSES

DATA = Path("data")
STICKFIGURES = DATA / "stickfigures"
ACTIVITYNET = DATA / "activitynet-1.3"
THUMOS = DATA / "thumos-14"
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
    settings = e2e_stickfigures()
    return settings.model_copy(
        update={
            "name": "stickfigures",
            "data": settings.data.model_copy(
                update={"features": STICKFIGURES / "features", "feature_views": 4}
            ),
        }
    )


def anet_tsp() -> Settings:
    """ActivityNet-1.3 on TSP features: the released ETAD code's settings, average mAP 37.80 there.

    The released filter of short actions never takes effect; `data.min_action=0` does as it does.
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
    """ActivityNet-1.3 videos, TSP's encoder trained: as released, average mAP 38.73 there.

    The videos are at 15 frames a second with a short side of 256. Not as released: colours change
    by brightness, contrast and saturation alone, and nothing is rotated or sheared.
    """
    features = anet_tsp()
    return features.model_copy(
        update={
            "name": "e2e_anet_tsp",
            "data": features.data.model_copy(
                update={
                    "features": None,
                    "videos": ACTIVITYNET / "raw_data" / "Anet_videos_15fps_short256",
                    "snippet_rule": "ends",
                    "jitter": 0.5,
                }
            ),
            "encoder": EncoderSettings(weights=PRETRAINED / "r2plus1d_34_tsp_anet.safetensors"),
            "sampling": SamplingSettings(snippet_ratio=40 / 128),  # 0.3 in whole chunks of 4
            "training": TrainingSettings(
                epochs=6, batch_size=4, detector_lr=5e-4, encoder_lr=5e-7, step_epoch=5
            ),
        }
    )


def thumos_i3d() -> Settings:
    """THUMOS-14 on I3D features in windows: OpenTAD's settings, average mAP 55.56 there."""
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
            optimizer="adam",
            epochs=8,
            batch_size=16,
            detector_lr=1e-4,
            step_epoch=5,
            clip_norm=1.0,
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
    """THUMOS-14 videos in windows, TSP's encoder trained: nobody published it (this project's).

    Windows, detector and test are those of `thumos_i3d`, encoder and its rate those of
    `e2e_anet_tsp`. TSP saw 16 frames at 15 a second, which is every second of these videos' frames;
    the middle of such a snippet is 16 frames after its start.
    """
    windows, encoded = thumos_i3d(), e2e_anet_tsp()
    return windows.model_copy(
        update={
            "name": "e2e_thumos_tsp",
            "data": windows.data.model_copy(
                update={
                    "features": None,
                    "videos": THUMOS / "raw_data" / "video",
                    "frame_step": 2,
                    "window_offset": 16,
                    "jitter": encoded.data.jitter,
                    "workers": encoded.data.workers,
                }
            ),
            "encoder": EncoderSettings(weights=PRETRAINED / "r2plus1d_34_tsp_thumos.safetensors"),
            "detector": windows.detector.model_copy(
                update={"in_channels": encoded.detector.in_channels}
            ),
            "sampling": windows.sampling.model_copy(
                update={"snippet_ratio": encoded.sampling.snippet_ratio}
            ),
            "training": windows.training.model_copy(
                update={"batch_size": 4, "encoder_lr": encoded.training.encoder_lr}
            ),
        }
    )


PRESETS: dict[str, Callable[[], Settings]] = {
    preset.__name__: preset
    for preset in (
        stickfigures,
        e2e_stickfigures,
        anet_tsp,
        e2e_anet_tsp,
        thumos_i3d,
        e2e_thumos_tsp,
    )
}


def preset(name: str, assignments: Sequence[str] = ()) -> Settings:
    """The settings of a preset with `section.key=value` assignments applied.

    Args:
        name: of a preset, or a JSON file with complete settings, such as a run's config.json.
        assignments: changes.

    Raises:
        InputError: there is no such preset or file, or an assignment does not fit.
    """
    if name.endswith(".json"):
        return _from_file(Path(name)).changed(assignments)
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise InputError(
            f'there is no preset "{name}"{hint} (there are {", ".join(PRESETS)}, or give a file '
            "of settings)"
        )
    return PRESETS[name]().changed(assignments)


def home(settings: Settings) -> Path:
    """The folder of a preset's data set, such as data/thumos-14."""
    return Path(*settings.data.annotations.parts[:2])


def placed(settings: Settings, folder: Path) -> Settings:
    """A preset's settings with its data set in another folder.

    What the preset looks for in `data/NAME` is looked for in `folder`; what it looks for elsewhere
    in `data`, such as pre-trained weights, beside `folder`.
    """
    before = home(settings)

    def move(value: object) -> object:
        if not isinstance(value, Path) or not value.is_relative_to(DATA):
            return value
        if value.is_relative_to(before):
            return folder / value.relative_to(before)
        return folder / ".." / value.relative_to(DATA)

    sections = {
        name: section.model_copy(update={key: move(value) for key, value in section})
        for name, section in settings
        if isinstance(section, Section)
    }
    return settings.model_copy(update=sections)


def _from_file(path: Path) -> Settings:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file of settings") from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON file of settings: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} is no JSON object of settings")
    return read_settings(tree, str(path))
