"""The files around the package are true: links, file tree, workflows, hooks."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY, files_known_to_git
from PIL import Image
from rooms import ROOMS

from etadlite import __version__

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "notebooks/**/*.md", "data_scripts/*.md", "tests/**/*.md")
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
    assert README.count("![") == 3  # the others: the method, and the table of real footage


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
    ignored = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    for name in set(re.findall(rf"\b{folders}/[\w/.-]+\.(?:py|sh|md|ipynb|png|json)\b", text)):
        if "NN_" not in name and f"/{name}" not in ignored:  # what a student writes is not here
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
    binary = (".png", ".gif", ".safetensors", ".ipynb")
    for name in files_known_to_git():
        if name.endswith(binary):
            continue
        data = (REPOSITORY / name).read_bytes()
        assert not data or (data.endswith(b"\n") and not data.endswith(b"\n\n")), name
        assert not re.search(rb"[ \t]+$", data, flags=re.MULTILINE), name


# Other machines: development containers, JupyterHub, Windows, the cloud


def recipe(target):
    """The lines that a target of the Makefile runs."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]


def test_the_development_container_installs_what_make_installs():
    container = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text())
    assert container["image"].startswith("mcr.microsoft.com/devcontainers/python:3.11")
    tool, target = container["postCreateCommand"].split()
    assert tool == "make"
    assert f"\n{target}:" in (REPOSITORY / "Makefile").read_text()
    (port,) = container["forwardPorts"]
    assert str(port) in container["portsAttributes"]
    settings = container["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith(".venv/bin/python")


def test_the_image_for_a_hub_copies_what_exists_and_ends_as_the_student():
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    steps = [line for line in lines if line and not line.startswith("#")]
    assert steps[0].startswith("FROM quay.io/jupyter/")
    assert {step.split()[0] for step in steps} == {"FROM", "COPY", "RUN", "USER"}
    for step in (step.split() for step in steps if step.startswith("COPY")):
        *names, place = [word for word in step[1:] if not word.startswith("--")]
        assert place.startswith("/tmp/etadlite/")
        assert all((REPOSITORY / name).exists() for name in names)
    assert steps[-1] == "USER ${NB_UID}"


def test_windows_has_a_command_for_what_make_does():
    text = (REPOSITORY / "notebooks" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `make (\w+)` \| (.+) \|$", text, re.MULTILINE)
    assert {"install", "demo", "test", "slides", "book"} <= {target for target, _ in rows}
    for target, commands in rows:
        last = re.findall(r"`([^`]+)`", commands)[-1]
        module = re.match(r"python -m ([\w.]+)", last)
        if module:  # the same module with the same folders
            ran = recipe(target).replace("$(TESTS)", "python -m pytest")
            assert f"python -m {module[1]}" in ran
            assert set(re.findall(r"runs/\S+", last)) <= set(re.findall(r"runs/\S+", ran))
        if last.startswith("etadlite"):
            assert last in recipe(target).replace("$(BIN)/", "")


def test_what_opens_in_the_cloud_exists():
    text = (REPOSITORY / "notebooks" / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"https://\S*OWNER/REPOSITORY\S*", text)
    assert len(links) == 3  # Binder, Colab, and the repository that Colab clones
    for name in re.findall(r"notebooks/\w+\.ipynb", " ".join(links)):
        assert (REPOSITORY / name).exists()
    assert "mybinder.org" in links[0]
    assert (REPOSITORY / "environment.yml").exists()


def test_bars_of_progress_are_widgets_in_notebooks():
    """tqdm's plain bar writes to stderr, which JupyterLab shows as pink blocks."""
    for path in (REPOSITORY / "etadlite").rglob("*.py"):
        assert not re.search(r"(?m)^(from tqdm import|import tqdm)", path.read_text("utf-8")), path
