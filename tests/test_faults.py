"""A share of the campaign of faults, with a fresh seed that a failure shows."""

import random
import re
import secrets
import sys

import faults
import pytest

from etadlite.base.errors import InputError


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory of processes")
@pytest.mark.parametrize(("kind", "most"), [("features", 150), ("tables", 200), ("settings", 20)])
def test_damaged_inputs_are_read_or_refused(tmp_path, kind, most):
    seed = secrets.token_hex(4)
    print(f"seed {seed}")
    found = faults.campaign(kind, seed, tmp_path, seconds=60, most=most)
    assert found
    assert not [verdict for verdict in found if verdict.lost]


def broken(path, intact):
    raise {"1": KeyError("x"), "2": InputError("no name"), "3": InputError(f"{path}\ntwo")}[intact]


@pytest.mark.parametrize("how", "123")
def test_the_campaign_calls_a_bad_refusal_lost(tmp_path, monkeypatch, how):
    monkeypatch.setattr(faults, "limited", True)
    kind = faults.INPUTS["tables"]._replace(read=broken)
    monkeypatch.setitem(faults.INPUTS, "tables", kind)
    assert faults.examine(faults.Case("tables", 0, tmp_path / "a.csv", how, "s"))[0]


@pytest.mark.parametrize("again", ["", "wrong"])
def test_a_case_is_lost_when_it_is_lost_twice(tmp_path, monkeypatch, capsys, again):
    tries = iter(["", "wrong", again])
    monkeypatch.setattr(faults, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(
        faults, "verdicts", lambda made: (faults.Verdict(case, next(tries)) for case in made)
    )
    found = faults.campaign("tables", "s", tmp_path, seconds=60, most=2)
    assert [verdict.lost for verdict in found] == ["", again]
    said = capsys.readouterr().out
    assert ("LOST ONCE tables 1 (" in said) == (not again)
    assert ("--seed s --first 1 --count 1" in said) == bool(again)


def test_a_number_gives_the_same_damage_again(tmp_path):
    first, again = (
        [c.path.read_bytes() for c in faults.cases("tables", "s", numbers, tmp_path / name)]
        for name, numbers in (("a", range(3, 9)), ("b", range(3, 9)))
    )
    assert first == again
    assert len(set(first)) > 1


@pytest.mark.parametrize("kind", ["features", "tables", "settings", "checkpoints"])
def test_what_is_damaged_can_be_read_when_it_is_intact(tmp_path, kind):
    inputs = faults.INPUTS[kind]
    for name in inputs.names:
        inputs.write(tmp_path / name)
        if name != "published.pth":  # of no known network
            assert inputs.read(tmp_path / name, tmp_path / name) == "read"


@pytest.mark.parametrize(("known", "code"), [([], 1), (["--known", "videos"], 0)])
def test_only_losses_of_other_kinds_than_the_known_ones_fail(monkeypatch, capsys, known, code):
    def campaign(kind, seed, folder, **how):
        case = faults.Case(kind, 0, folder, folder, seed)
        return [faults.Verdict(case, "wrong" if kind == "videos" else "")]

    monkeypatch.setattr(faults, "campaign", campaign)
    monkeypatch.setattr(sys, "argv", ["faults.py", "--kinds", "tables", "videos", *known])
    assert faults.main() == code
    said = capsys.readouterr().out
    assert re.match(r"seed [0-9a-f]{8}\n", said)
    assert bool(re.search(r"LOST videos 0 .*: wrong\n.*--count 1\n\Z", said)) == bool(code)


@pytest.mark.slow
def test_a_burst_of_kills_between_one_and_two_processes_changes_no_weight(tmp_path):
    trainings = faults.Trainings(
        tmp_path, *faults.BURSTS, "training.epochs=16", "training.test_every=16"
    )
    kills, wrong = faults.kill(trainings, random.Random(secrets.token_hex(4)), "burst", 4)
    assert (kills, wrong) == (4, "")
