"""The files around the package are true: links, file tree, workflows, hooks."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY
from PIL import Image
from rooms import ROOMS

from etadlite import __version__

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "notebooks/*.md", "data_scripts/*.md", "tests/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
WORKFLOWS = {path.stem: path for path in (REPOSITORY / ".github" / "workflows").glob("*.yml")}


def prose(text):
    """Return a page's text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def file_tree():
    """Return the README's file tree: name -> what the line says about it."""
    block = README.partition("## Where things are")[2].split("```")[1]
    lines = [line.split(maxsplit=1) for line in block.strip().splitlines()]
    return {name.rstrip("/"): (rest or [""])[0] for name, *rest in lines}


def test_the_readme_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


def test_the_readme_begins_with_two_commands_and_one_picture():
    first_screen = README.partition("\n## ")[0]
    commands = re.findall(r"^make \w+", first_screen, flags=re.MULTILINE)
    assert commands == ["make demo", "make test"]
    assert first_screen.count("![") == 1
    assert README.count("![") == 2  # the other one stands beside the table of real footage


def test_the_first_screen_of_the_readme_says_what_for_whom_and_shows_a_film():
    screen = "\n".join(README.splitlines()[:25])
    assert all(word in screen for word in ("students", "researchers", "make demo", "make test"))
    (film,) = re.findall(r"!\[.+\]\((.+\.gif)\)", screen)
    assert (REPOSITORY / film).stat().st_size < 2e6
    with Image.open(REPOSITORY / film) as picture:
        assert picture.n_frames > 50
        assert picture.info["loop"] == 0


@pytest.mark.parametrize("page", PAGES)
def test_links_into_the_repository_lead_somewhere(page):
    file = REPOSITORY / page
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(file.read_text(encoding="utf-8"))):
        path, _, _anchor = target.partition("#")
        if path and "://" not in path:
            assert (file.parent / path).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_a_file_that_a_page_names_exists(page):
    """Scripts in commands, tests and modules: whatever has a folder and a suffix of ours."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    folders = r"(?:etadlite|tests|data_scripts|notebooks)"
    for name in set(re.findall(rf"\b{folders}/[\w/.-]+\.(?:py|sh|md|ipynb|png|json)\b", text)):
        if "NN_" not in name:
            assert (REPOSITORY / name).exists(), name


def test_the_file_tree_names_every_notebook_and_every_room_in_order():
    tree = file_tree()
    assert all(len(said) > 10 for name, said in tree.items() if name != "etadlite")
    notebooks = [path.stem for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))]
    assert len(notebooks) >= 8
    assert [name for name in tree if name in notebooks] == notebooks
    rooms = [name.removesuffix(".py") for name in tree if name.removesuffix(".py") in ROOMS]
    assert rooms == [room for room in ROOMS if room != "__main__"]
    for name in ("notebooks", "etadlite", "data_scripts", "tests"):
        assert name in tree


def test_every_target_that_a_page_names_is_in_the_makefile():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))
    for page in PAGES:
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^|`)make (\w+)", text, flags=re.MULTILINE)) <= targets, page


def fits_schema(name, *files):
    schema = ("--builtin-schema", f"vendor.{name}")
    command = [sys.executable, "-m", "check_jsonschema", *schema, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflows_are_valid():
    assert WORKFLOWS.keys() == {"lint", "release", "test"}
    fits_schema("github-workflows", *WORKFLOWS.values())


def test_the_citation_is_valid():
    fits_schema("citation-file-format", REPOSITORY / "CITATION.cff")


def test_the_workflows_test_the_oldest_python_on_three_systems():
    job = yaml.safe_load(WORKFLOWS["test"].read_text(encoding="utf-8"))["jobs"]["test"]
    matrix = job["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    oldest = re.search(
        r'requires-python = ">=([\d.]+)"', (REPOSITORY / "pyproject.toml").read_text()
    )
    assert matrix["python-version"][0] == oldest[1]


def test_a_release_is_published_without_a_token_and_only_after_the_wheel_was_tried():
    jobs = yaml.safe_load(WORKFLOWS["release"].read_text(encoding="utf-8"))["jobs"]
    publish = jobs["publish"]
    assert (publish["needs"], publish["environment"]) == ("build", "pypi")
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert "secrets." not in WORKFLOWS["release"].read_text(encoding="utf-8")
    runs = "\n".join(step.get("run", "") for step in jobs["build"]["steps"])
    places = [runs.index(text) for text in ("GITHUB_REF_NAME", "twine check", "etadlite course")]
    assert places == sorted(places)


@pytest.mark.skipif(sys.platform == "win32", reason="a step of a workflow on Linux")
def test_a_tag_that_is_not_the_version_stops_the_release(tmp_path):
    """The step that compares them, run as it stands."""
    jobs = yaml.safe_load(WORKFLOWS["release"].read_text(encoding="utf-8"))["jobs"]
    (step,) = [s for s in jobs["build"]["steps"] if "GITHUB_REF_NAME" in s.get("run", "")]
    for tag, ends in ((f"v{__version__}", 0), ("v99.0.0", 1), (__version__, 1)):
        command = ["bash", "-e", "-c", step["run"]]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=os.environ | {"GITHUB_REF_NAME": tag}, check=False
        )
        assert done.returncode == ends, tag


def test_pre_commit_runs_the_hooks_that_keep_files_clean():
    file = REPOSITORY / ".pre-commit-config.yaml"
    repositories = yaml.safe_load(file.read_text(encoding="utf-8"))["repos"]
    assert all({"repo", "rev", "hooks"} <= set(entry) for entry in repositories)
    hooks = {hook["id"] for entry in repositories for hook in entry["hooks"]}
    expected = {"ruff-check", "ruff-format", "codespell", "end-of-file-fixer"}
    assert expected | {"trailing-whitespace", "check-yaml"} == hooks


def test_text_files_end_with_one_newline_and_no_line_with_spaces():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    binary = (".png", ".gif", ".safetensors", ".ipynb")
    for name in listed.stdout.decode().split("\0"):
        file = REPOSITORY / name
        if not name or name.endswith(binary) or not file.is_file():
            continue
        data = file.read_bytes()
        assert not data or (data.endswith(b"\n") and not data.endswith(b"\n\n")), name
        assert not re.search(rb"[ \t]+$", data, flags=re.MULTILINE), name
