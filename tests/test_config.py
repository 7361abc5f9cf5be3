"""Settings: complete presets, assignments, and clear refusals."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from etadlite.base.errors import InputError
from etadlite.config import DataSettings, flat, read_settings
from etadlite.presets import PRESETS, home, placed, preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_complete_named_after_itself_and_survives_json(name):
    settings = preset(name)
    assert settings.name == name
    back = read_settings(json.loads(settings.model_dump_json()), "the copy")
    assert back == settings


def test_flat_names_are_exactly_the_leaves_of_the_tree():
    def leaves(tree, prefix=""):
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    tree = preset("e2e_stickfigures").model_dump(mode="json")
    assert list(flat(tree)) == list(leaves(tree))


def test_assignments_change_what_they_name_and_nothing_else():
    before = preset("e2e_stickfigures")
    after = before.changed(
        [
            "training.epochs=3",
            "data.videos=my videos/a=b",
            "data.cache=null",
            "inference.tiou=[0.5]",
        ]
    )
    assert after.training.epochs == 3
    assert str(after.data.videos) == "my videos/a=b"
    assert after.data.cache is None
    assert after.inference.tiou == (0.5,)
    assert before.training.epochs != 3
    changed = [
        name
        for name in flat(before.model_dump())
        if _value(before.model_dump(), name) != _value(after.model_dump(), name)
    ]
    assert changed == ["data.videos", "data.cache", "training.epochs", "inference.tiou"]


def _value(tree, name):
    for part in name.split("."):
        tree = tree[part]
    return tree


@given(st.floats(1e-9, 1), st.integers(1, 1000), st.booleans())
def test_values_written_as_json_arrive_unchanged(rate, epochs, flip):
    values = {"training.detector_lr": rate, "training.epochs": epochs, "data.flip": flip}
    settings = preset("e2e_stickfigures", [f"{k}={json.dumps(v)}" for k, v in values.items()])
    assert {name: _value(settings.model_dump(), name) for name in values} == values


def test_settings_cannot_be_changed_in_place():
    settings = preset("e2e_stickfigures")
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        settings.training.epochs = 1


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epohcs=3", 'no setting "training.epohcs"; did you mean "training.epochs"'),
        ("epochs=3", 'no setting "epochs"; did you mean "training.epochs"'),
        ("trainig.batch_size=3", 'did you mean "training.batch_size"'),
        ("snippet_ration=0.5", 'did you mean "sampling.snippet_ratio"'),
        ("training=3", "no setting"),
        ("qqq=3", "there are name, seed, device, data.annotations"),
        ("training.epochs", '"training.epochs" is no assignment; write section.key=value'),
        ("training.epochs=", "training.epochs = '' does not fit"),
        ("training.epochs=many", "training.epochs = 'many' does not fit: input should be a valid"),
        ("training.epochs=2.5", "training.epochs = 2.5 does not fit"),
        ("training.epochs=0", "training.epochs = 0 does not fit: .* greater than or equal to 1"),
        ("training.epochs=null", "training.epochs = None does not fit"),
        ("training.detector_lr=NaN", "training.detector_lr = nan does not fit"),
        ("losses.offset_weight=Infinity", "losses.offset_weight = inf does not fit"),
        ("data.flip=perhaps", "data.flip = 'perhaps' does not fit"),
        ("data.decode_size=[52]", "data.decode_size"),
        ("data.crop=600", "data.crop = 600 does not fit: it is larger than data.decode_size"),
        ("data.decode_size=[16, 80]", r"data.crop = .* is larger than data.decode_size \[16, 80"),
        ("encoder.name=vit", "encoder.name = 'vit' does not fit: .*'tiny'"),
        ("device=tpu", "device = 'tpu' does not fit"),
        ("detector.width=0", "detector.width = 0 does not fit"),
        ("detector.in_channels=6", "detector.in_channels = 6 does not fit"),
        ("data.window_overlap=0.499", "data.window_overlap = 0.499 does not fit"),
        ("data.blocked=7", "data.blocked.* = 7 does not fit"),
        ("detector.width=33", "detector.width = 33 does not fit"),
        ("detector.roi_size=-4", "detector.roi_size = -4 does not fit"),
        ("detector.classes=jump", "detector.classes = 'jump' does not fit"),
        ("losses.stage_positive_iou=[]", r"losses.stage_positive_iou = \[\] does not fit"),
        ("inference.tiou=[]", r"inference.tiou = \[\] does not fit"),
        ("inference.tiou=[50]", "inference.tiou.0 = 50 does not fit"),
        ("sampling.snippet_ratio=30", "sampling.snippet_ratio = 30 does not fit"),
        ("sampling.proposal_ratio=0", "sampling.proposal_ratio = 0 does not fit"),
    ],
)
def test_a_wrong_assignment_is_refused_in_one_sentence(assignment, message):
    with pytest.raises(InputError, match=message) as error:
        preset("e2e_stickfigures", [assignment])
    assert "\n" not in str(error.value)


def test_the_last_of_two_assignments_counts_and_a_crop_fits_the_size_it_comes_with():
    settings = preset(
        "e2e_stickfigures", ["data.crop=100", "data.decode_size=[100, 120]", "seed=1"]
    )
    assert settings.data.crop == 100
    assert preset("e2e_stickfigures", ["seed=1", "seed=2"]).seed == 2


def test_a_default_crop_too_is_checked():
    with pytest.raises(ValidationError, match="crop"):
        DataSettings(annotations="a.json", decode_size=(64, 64))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("e2e_stickfigure", 'no preset "e2e_stickfigure"; did you mean "e2e_stickfigures"'),
        ("zzz", 'no preset "zzz" .there are '),
    ],
)
def test_an_unknown_preset_is_refused_with_the_nearest_name(name, message):
    with pytest.raises(InputError, match=message):
        preset(name)


def test_a_tree_with_an_unknown_section_names_its_source():
    tree = preset("stickfigures").model_dump(mode="json") | {"optimiser": {}}
    with pytest.raises(InputError, match=r"old\.json: optimiser .* does not fit: extra inputs"):
        read_settings(tree, "old.json")


def test_a_preset_is_placed_where_its_data_lie(tmp_path):
    there = placed(preset("e2e_thumos_tsp"), tmp_path / "thumos")
    assert there.data.videos == tmp_path / "thumos" / "raw_data" / "video"
    assert there.inference.classifier == tmp_path / "thumos" / "classifiers" / "uNet_test.npy"
    beside = (there.encoder.weights or tmp_path).resolve()
    assert beside == tmp_path.resolve() / "pretrained" / "r2plus1d_34_tsp_thumos.safetensors"
    for name in PRESETS:
        settings = preset(name)
        assert placed(settings, home(settings)).model_dump() | {"encoder": None} == (
            settings.model_dump() | {"encoder": None}
        )
    elsewhere = preset("anet_tsp", ["data.features=/mnt/features"])
    assert str(placed(elsewhere, tmp_path).data.features) == "/mnt/features"
