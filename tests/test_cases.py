"""Small inputs that people reported, with the right values; what is made here runs elsewhere too.

Each has a twin that is generated: in `test_names`, `test_importers` and `test_readers`.
"""

import shutil
import subprocess
import sys
import warnings

import pytest

from etadlite.base.errors import InputError
from etadlite.data.annotations import read_annotations
from etadlite.data.features import read_features
from etadlite.data.video import Video
from etadlite.evaluation import mean_average_precision
from etadlite.inference.classifiers import LabelScores
from etadlite.prepare.convert import convert
from etadlite.prepare.importers import read_rows
from etadlite.prepare.own_data import ImportOptions, init_dataset
from etadlite.presets import preset
from etadlite.runs.run import run_training


@pytest.fixture
def case(shared, tmp_path, request):
    """A copy of a case's folder."""
    source = shared / "cases" / request.param
    if not source.is_dir():
        pytest.skip(f"no folder {source}")
    return shutil.copytree(source, tmp_path / request.param)


def of(name):
    return pytest.mark.parametrize("case", [name], indirect=True)


def started(case, *annotations, tier=None):
    """The actions of the data set that is started from a case, by video."""
    files = [case / name for name in annotations]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other files are left out
        init_dataset(case, files, case / "out", ImportOptions(tier=tier), progress=False)
    videos = read_annotations(case / "out" / "annotations.json").values()
    return {video.name: [(a.label, a.start, a.end) for a in video.actions] for video in videos}


@of("bom-json")
def test_a_mark_of_the_encoding_is_no_fault(case):
    files = case / "annotations.json", case / "pred.json"
    assert mean_average_precision(*files, subset="validation", tiou=[0.5]).average == 1.0


@of("duplicate-keys")
def test_a_video_that_stands_twice_is_named(case):
    with pytest.raises(InputError, match='"a" stands twice'):
        read_rows(case / "annotations.json")
    with pytest.raises(InputError, match='"a" stands twice'):
        read_annotations(case / "annotations.json")
    good = {"database": {"b": {"subset": "validation", "duration": 9, "annotations": [
        {"segment": [1, 3], "label": "wave"}]}}}  # fmt: skip
    with pytest.raises(InputError, match='"b" stands twice'):
        mean_average_precision(good, case / "pred.json", subset="validation", tiou=[0.5])


@of("containers-skipped")
def test_a_folder_gives_all_its_videos(case):
    assert started(case, "labels.csv").keys() == {"00001", "a", "c"}  # nobody annotated e


@of("elan-subdivision")
def test_parts_of_a_symbolic_subdivision_are_equal(case):
    found = started(case, "take1.eaf", "take2.eaf", tier="step")
    first = [("lift", 2, 4), ("hold", 4, 6), ("lower", 6, 8)]
    wanted = [*first, ("lift", 10, 12), ("lower", 12, 14)]
    assert found == {"take1": wanted, "take2": wanted}


@of("elan-unaligned-slots")
def test_borders_without_a_time_are_interpolated(case):
    rows = read_rows(case / "take1.eaf", "step")
    assert [(row.start, row.end) for row in rows] == [(2, 4), (4, 6), (6, 8)]


@of("unicode-forms")
def test_a_decomposed_name_is_found(case):
    subprocess.run([sys.executable, case / "make.py"], check=True)
    assert len(started(case, "labels.csv")) == 2


@pytest.mark.slow
@of("long-features")
def test_features_of_66_000_rows_are_learnt(case):
    subprocess.run([sys.executable, case / "make.py"], check=True)
    settings = preset(
        "stickfigures",
        [
            *(
                f"data.annotations={case / 'annotations.json'}",
                f"data.features={case / 'features'}",
            ),
            *("data.feature_views=1", "data.snippets=16", 'detector.classes=["x"]', "device=cpu"),
            *("detector.in_channels=8", "detector.width=32", "detector.roi_size=8"),
            *("detector.hidden=16", "detector.head=16", "detector.max_duration=16"),
            *("training.epochs=15", "data.workers=0", "sampling.proposal_ratio=1"),
        ],
    )
    report = run_training(settings, case / "run", progress=False)
    assert report.per_tiou == (1.0,) * len(report.per_tiou)


# The inputs of a fault campaign


@pytest.fixture
def inputs(shared):
    folder = shared / "cases" / "faults" / "inputs"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    return folder


READERS = {
    "feature_*.npy": lambda path: read_features(path, 48),
    "annotations_[!g]*.json": read_annotations,
    "predictions_big_int.json": lambda path: mean_average_precision(
        *(path.with_name("annotations_good.json"), path), subset="validation", tiou=[0.5]
    ),
    "classifier_big_int.json": LabelScores,
    "csv_long_field.csv": read_rows,
    "codec_unknown.mp4": Video,
    "convert_expand_bomb.pth": lambda path: convert(path, path.with_name("x.safetensors")),
}


@pytest.mark.parametrize("pattern", READERS)
def test_a_damaged_input_is_one_sentence(inputs, pattern):
    files = sorted(inputs.glob(pattern))
    assert files
    for path in files:
        with pytest.raises(InputError, match=path.name) as error:
            READERS[pattern](path)
        assert "\n" not in str(error.value)


def test_an_intact_input_is_read(inputs):
    assert Video(inputs / "title_latin1.avi").info.frames == 8
    assert [row.label for row in read_rows(inputs / "elan_big_time.eaf")] == [""]  # it has no tier
