"""The package's files agree with one another."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from rooms import PACKAGE, ROOMS, arrows, floors, imported_rooms, room_of

import etadlite
from etadlite.base.weights import load_weights
from etadlite.encoders.weights import TINY_WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(listed):
    """Name -> lower bound."""
    found = {}
    for line in listed:
        requirement = Requirement(line)
        bounds = [s.version for s in requirement.specifier if s.operator == ">="]
        found[requirement.name] = bounds[0] if bounds else None
    return found


RUNTIME = requirements(PROJECT["dependencies"])


@pytest.fixture(scope="module")
def conda():
    """All requirements of environment.yml, those of pip included."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    named = [entry for entry in dependencies if isinstance(entry, str)]
    return requirements([*named, *(line for line in pip if not line.startswith("-"))])


@pytest.mark.parametrize("name", sorted(RUNTIME.keys() - {"eva-decord"}))
def test_a_runtime_dependency_is_in_the_conda_environment_with_the_same_bound(conda, name):
    assert RUNTIME[name] is not None
    assert conda[name] == RUNTIME[name]


def test_the_conda_environment_asks_for_nothing_else(conda):
    assert conda.keys() - RUNTIME.keys() == {"python", "pip"}
    assert f">={conda['python']}" == PROJECT["requires-python"]


def test_one_decord_is_asked_for_on_every_system():
    lines = [Requirement(line) for line in PROJECT["dependencies"] if "decord" in line]
    for system in ("linux", "darwin", "win32"):
        chosen = [line.name for line in lines if line.marker.evaluate({"sys_platform": system})]
        assert chosen == ["eva-decord" if system == "darwin" else "decord"]
    assert "eva-decord>=" + RUNTIME["eva-decord"] in (ROOT / "environment.yml").read_text()


def test_versions_and_licence_agree():
    assert PROJECT["version"] == etadlite.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:300]
    titles = str(citation)
    assert "ETAD: Training Action Detection End to End on a Laptop" in titles


def test_the_lowest_python_is_the_one_that_ruff_checks_for():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert tool["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"


@pytest.mark.skipif(not TINY_WEIGHTS.exists(), reason="the tiny encoder's weights are not made yet")
def test_the_shipped_weights_are_small_safetensors_that_say_where_they_come_from():
    assert TINY_WEIGHTS.stat().st_size < 2**20
    weights, metadata = load_weights(TINY_WEIGHTS)
    assert len(weights) > 10
    assert metadata
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    inside = TINY_WEIGHTS.relative_to(ROOT / "etadlite")
    assert any(inside.match(pattern) for pattern in patterns["package-data"]["etadlite"])


def test_every_file_stands_in_a_room():
    rooms_of_files = {room_of(path) for path in PACKAGE.rglob("*.py")}
    assert rooms_of_files - {""} == set(ROOMS)


def test_rooms_import_only_from_rooms_before_them():
    place = {room: number for number, room in enumerate(ROOMS)}
    for path in sorted(PACKAGE.rglob("*.py")):
        own = place.get(room_of(path), -1)
        for other in imported_rooms(path):
            assert place[other] <= own, f"{path} imports from {other}, which comes after its room"


def test_the_house_stays_small():
    found = arrows()
    count = sum(map(len, found.values()))
    print(f"\n{len(found)} rooms, {floors(found)} floors, {count} arrows")
    assert len(found) <= 23
    assert floors(found) <= 11
    assert count <= 110


def test_versions_are_numbers():
    assert all(Version(bound) for bound in RUNTIME.values())
