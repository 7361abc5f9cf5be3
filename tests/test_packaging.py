"""The package's files agree with one another."""

import ast
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from conftest import files_known_to_git
from packaging.requirements import Requirement
from packaging.version import Version
from rooms import PACKAGE, ROOMS, arrows, floors, imported_rooms, room_of

import etadlite
from etadlite.base.weights import load_weights
from etadlite.encoders.tiny import TINY_WEIGHTS
from etadlite.presets import preset

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


@pytest.mark.parametrize("name", sorted(RUNTIME))
def test_a_runtime_dependency_is_in_the_conda_environment_with_the_same_bound(conda, name):
    assert RUNTIME[name] is not None
    assert conda[name] == RUNTIME[name]


def test_what_a_requirement_excludes_is_excluded_in_both_files():
    lines = [line.split(";")[0] for line in PROJECT["dependencies"] if "," in line]
    assert any(line.startswith("av") for line in lines)
    text = (ROOT / "environment.yml").read_text()
    assert all(f"- {line}\n" in text for line in lines)


def test_the_conda_environment_asks_for_nothing_else(conda):
    assert conda.keys() - RUNTIME.keys() == {"python", "pip"}
    assert f">={conda['python']}" == PROJECT["requires-python"]


def test_decord_is_asked_for_only_where_it_has_wheels():
    (line,) = PROJECT["optional-dependencies"]["decord"]
    machines = {
        ("linux", "x86_64"): True,
        ("linux", "aarch64"): False,
        ("darwin", "arm64"): False,
        ("darwin", "x86_64"): False,
        ("win32", "AMD64"): True,
        ("win32", "ARM64"): False,
    }
    for (system, machine), wanted in machines.items():
        here = {"sys_platform": system, "platform_machine": machine}
        assert Requirement(line).marker.evaluate(here) is wanted


def test_every_extra_that_a_text_names_is_there():
    known = map(Path, files_known_to_git())
    texts = [p for p in known if p.suffix in (".py", ".md") and p.parts[0] != "tests"]
    named = {
        name
        for path in texts
        for names in re.findall(r"(?:etadlite|\.)\[([a-z0-9,]+)\]['\"]", (ROOT / path).read_text())
        for name in names.split(",")
    }
    assert {"data", "hf", "lite", "teach", "timm"} <= named
    assert named <= PROJECT["optional-dependencies"].keys()


@pytest.fixture(scope="module")
def resolve():
    """A function that resolves the dependencies from wheels alone; skips without an index."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")

    def compiled(*options, source=ROOT / "pyproject.toml"):
        command = [uv, "pip", "compile", "--quiet", "--only-binary", ":all:", str(source), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return compiled


EXTRAS = [word for name in PROJECT["optional-dependencies"] for word in ("--extra", name)]


@pytest.mark.index
def test_every_platform_and_python_resolves_from_wheels_alone(resolve, tmp_path):
    small = tmp_path / "requirements.in"
    small.write_text("tqdm\n")
    if resolve(source=small).returncode:
        pytest.skip("no package index can be reached")
    platforms = (
        "x86_64-unknown-linux-gnu",
        "aarch64-unknown-linux-gnu",
        "aarch64-apple-darwin",
        "x86_64-pc-windows-msvc",
    )
    pythons = ("3.11", "3.12", "3.13", "3.14")
    pairs = list(itertools.product(platforms, pythons))
    with ThreadPoolExecutor(len(pairs)) as pool:
        done = pool.map(
            lambda p: resolve("--python-platform", p[0], "--python-version", p[1], *EXTRAS), pairs
        )
        for pair, process in zip(pairs, done, strict=True):
            assert process.returncode == 0, f"{pair}: {process.stderr}"


def test_version_and_licence_agree():
    assert "version" not in PROJECT  # setuptools reads it from the package
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tool["setuptools"]["dynamic"]["version"] == {"attr": "etadlite.__version__"}
    titles = re.findall(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased"
    assert titles[1] == etadlite.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == etadlite.__version__
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


# Importing is light

LOADED = """
names = [name for name in sys.modules if name.partition(".")[0] == "etadlite"]
print(json.dumps([sys.modules[name].__file__ for name in sorted(names)]))
"""

FUNCTIONS = """
import json, sys
from pathlib import Path
from etadlite.config import Settings
from etadlite.evaluation import mean_average_precision
from etadlite.inference.predict import predict
from etadlite.training import train
given = json.loads(sys.argv[1])
settings = Settings.model_validate(given["settings"])
training = train(settings, progress=False)
found = predict(Path(given["video"]), training.system, settings)
truth, predictions, subset = given["truth"], given["predictions"], given["subset"]
mean_average_precision(truth, predictions, subset=subset, tiou=[0.5], blocked=())
"""

COMMANDS = """
import contextlib, io, json, sys
from etadlite.cli import main
for arguments in json.loads(sys.argv[1])["commands"]:
    sys.argv = ["etadlite", *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            main()
    except SystemExit as end:
        assert not end.code, arguments
"""


def loaded_files(code, *arguments):
    """The files of the package that a new process has loaded after some code."""
    command = [sys.executable, "-c", f"{code}\nimport json, sys{LOADED}", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return [Path(file) for file in json.loads(ended.stdout.splitlines()[-1])]


def code_lines(source):
    """The number of lines that are not blank, a comment or a docstring."""
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*quiet, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def test_code_lines_are_counted_without_blank_lines_comments_and_docstrings():
    source = '"""A."""\n\n# b\ndef f():  # c\n    """D.\n\n    E."""\n    return 1\n'
    assert code_lines(source) == 2


@pytest.mark.slow
# Of the commands' lines, 600 make the page of a finished run: kinds of errors, settings, HTML.
@pytest.mark.parametrize(("code", "limit"), [(FUNCTIONS, 4200), (COMMANDS, 6500)])
def test_train_predict_and_evaluate_load_little_code(tiny, tmp_path, code, limit):
    truth = tiny.data / "annotations.json"
    database = json.loads(truth.read_text())["database"]
    results = {
        name: [action | {"score": 0.5} for action in entry["annotations"]]
        for name, entry in database.items()
        if entry["subset"] == "validation"
    }
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps({"results": results}))
    video = str(tiny.data / "videos" / "validation_00000.mp4")
    checkpoint = tmp_path / "runs" / "e2e_stickfigures" / "001" / "checkpoint.safetensors"
    evaluate = ["--ground-truth", truth, "--predictions", predictions, "--subset", "validation"]
    commands = [
        ["train", "e2e_stickfigures", *tiny.assignments, "--out", tmp_path / "runs", "--quiet"],
        ["predict", video, "--checkpoint", checkpoint, "--out", tmp_path / "out", "--quiet"],
        ["evaluate", *evaluate],
    ]
    given = {
        "settings": preset("e2e_stickfigures", tiny.assignments).model_dump(mode="json"),
        **{"video": video, "truth": str(truth), "subset": "validation"},
        **{"predictions": str(predictions), "commands": commands},
    }
    files = loaded_files(code, json.dumps(given, default=str))
    lines = {path.relative_to(PACKAGE): code_lines(path.read_text()) for path in files}
    print("", *(f"{count:5}  {path}" for path, count in lines.items()), sep="\n")
    total = sum(lines.values())
    print(f"{total} code lines in {len(files)} files")
    assert total <= limit


@pytest.mark.slow
def test_the_sequential_encoder_loads_at_most_12_modules():
    files = loaded_files("from etadlite.model import SequentialEncoder")
    print("", *files, sep="\n")
    assert len(files) <= 12
