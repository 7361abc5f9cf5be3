"""The engine's rules and the plan, for encoders of every kind; the benchmark has them all."""

import pytest
from benchmarks.encoders import (
    CASES,
    IMAGE,
    TORCHVISION,
    TRANSFORMERS,
    engine_proof,
    plan_proof,
    round_proof,
    small_networks,
)

from etadlite.config import ENCODERS

ROUNDS = ("videomae_b", "timesformer_b", "vivit_b", "vjepa2_l", "image:mobilenet_v3_small")


@pytest.fixture(autouse=True)
def _small():
    pytest.importorskip("transformers")
    with small_networks():
        yield


def test_every_encoder_by_name_has_a_case():
    assert set(ENCODERS) - set(CASES) == {"tiny", "r2plus1d_34", "videomae_l"}
    assert min(len(TORCHVISION) / 9, len(TRANSFORMERS) / 4, len(IMAGE) / 3) >= 1


@pytest.mark.parametrize("name", ["vivit_b", "image:mobilenet_v3_small"])
def test_the_gradient_is_that_of_back_propagation_whatever_the_chunk_and_the_prefix(name):
    for what, deviation in engine_proof(CASES[name]).items():
        assert deviation < 1e-9, what


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timesformer_b", "vivit_b", "image:resnet18"])
def test_the_plan_is_what_a_step_takes(name):
    for what, ratio in plan_proof(CASES[name]).items():
        assert ratio == pytest.approx(1, abs=0.1), what


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUNDS)
def test_convert_train_stop_resume_predict_and_extract(name, tiny, tmp_path):
    assert round_proof(CASES[name], tmp_path, tiny.data) == {"round": "passed"}
