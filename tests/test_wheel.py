"""The wheel is the product: built from the source distribution, installed elsewhere, and used."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY, files_known_to_git

from etadlite import __version__
from etadlite.base.errors import InputError
from etadlite.course import handout
from etadlite.course.build import notebook_names, notebooks_folder
from etadlite.course.handout import PARTS, shipped_notebooks, write_course
from etadlite.course.quiz import quiz_names

# `etadlite course`


def course_files(folder):
    return {path.relative_to(folder) for part in PARTS for path in folder.glob(part)}


def test_a_course_is_written_and_never_replaces_a_changed_file_silently(tmp_path):
    files = course_files(REPOSITORY)
    assert write_course(tmp_path).startswith(f"{len(files)} files written to {tmp_path}")
    notebooks = tmp_path / "notebooks"
    assert course_files(tmp_path) == files
    assert write_course(tmp_path).splitlines()[0].startswith("0 files written")

    changed, lost = notebooks / "00_quickstart.ipynb", notebooks / "README.md"
    changed.write_text("mine")
    lost.unlink()
    said = write_course(tmp_path)
    assert said.startswith("1 files written")
    assert "1 files differ and were kept as you have them" in said
    assert "00_quickstart.ipynb" in said
    assert changed.read_text() == "mine"
    assert "were replaced: notebooks/00_quickstart.ipynb" in write_course(tmp_path, overwrite=True)
    assert changed.read_bytes() == (REPOSITORY / "notebooks" / changed.name).read_bytes()
    assert "differ" not in write_course(tmp_path)


def test_every_link_and_script_in_a_course_leads_to_one_of_its_files(tmp_path):
    write_course(tmp_path)
    texts = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.md")}
    for path in tmp_path.rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path] = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] != "code")
    links = [
        (path, link)
        for path, text in texts.items()
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text)
        if "://" not in link
    ]
    assert links
    for path, link in links:
        assert (path.parent / link).exists(), f"{path.name}: {link}"
    named = {name for text in texts.values() for name in re.findall(r"data_scripts/\w+\.\w+", text)}
    assert "data_scripts/download.py" in named
    assert not [name for name in named if not (tmp_path / name).exists()]


def test_the_notebooks_of_a_course_are_used_where_it_lies(tmp_path, monkeypatch):
    assert notebooks_folder() == REPOSITORY / "notebooks"
    write_course(tmp_path)
    for place in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(place)
        assert notebooks_folder() == tmp_path / "notebooks"
    assert notebook_names(tmp_path / "notebooks") == notebook_names(REPOSITORY / "notebooks")


def test_an_installation_without_notebooks_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(handout.etadlite, "__file__", str(tmp_path / "a" / "b" / "__init__.py"))
    monkeypatch.setattr(handout.importlib.metadata, "files", lambda name: None)
    with pytest.raises(InputError, match="lacks the notebooks; repair it with pip install"):
        shipped_notebooks()


# Building and installing


def built(kind, source, folder):
    """Build a distribution with the backend, in another process, without an index."""
    code = f"from setuptools import build_meta as b; print(b.build_{kind}({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The source distribution of what git knows, and the wheel that is built from it alone."""
    root = tmp_path_factory.mktemp("distributions")
    for name in files_known_to_git():
        (root / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, root / "copy" / name)
    sdist = built("sdist", root / "copy", root)
    with tarfile.open(sdist) as archive:
        archive.extractall(root / "unpacked", filter="data")
    (unpacked,) = (root / "unpacked").iterdir()
    return sdist, built("wheel", unpacked, root)


@pytest.mark.slow
def test_what_the_image_for_a_hub_copies_is_enough_for_the_wheel(tmp_path):
    """The wheel from the files that the Dockerfile copies holds the package and the course."""
    for step in (REPOSITORY / "Dockerfile").read_text().splitlines():
        if step.startswith("COPY"):
            *names, place = [word for word in step.split()[1:] if not word.startswith("--")]
            target = tmp_path / "image" / place.removeprefix("/tmp/etadlite/")
            target.mkdir(parents=True, exist_ok=True)
            for name in names:
                source = REPOSITORY / name
                if source.is_dir():
                    shutil.copytree(source, target, dirs_exist_ok=True)
                else:
                    shutil.copy(source, target)
    with zipfile.ZipFile(built("wheel", tmp_path / "image", tmp_path)) as archive:
        names = archive.namelist()
    data = f"etadlite-{__version__}.data/data/share/etadlite/"
    course = {name.removeprefix(data) for name in names if name.startswith(data)}
    assert course == {path.as_posix() for path in course_files(REPOSITORY)}
    assert "etadlite/cli.py" in names


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """The folder of an environment's commands, in which the wheel is all that is installed.

    Its dependencies are those of this environment, which lie behind its own packages.
    """
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, symlinks=os.name != "nt")
    places = {name: str(root) for name in ("base", "platbase")}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=places))
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    commands = Path(sysconfig.get_path("scripts", "venv", vars=places))
    python = commands / Path(sys.executable).name
    options = ("--quiet", "--no-deps", "--no-index", "--ignore-installed")
    command = [python, "-m", "pip", "install", *options, distributions[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return commands


@pytest.mark.slow
def test_both_distributions_are_complete_and_fit_for_an_index(distributions):
    sdist, wheel = distributions
    assert sdist.name == f"etadlite-{__version__}.tar.gz"
    assert wheel.name == f"etadlite-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {
        p.relative_to(REPOSITORY).as_posix() for p in (REPOSITORY / "etadlite").rglob("*.py")
    }
    assert {name for name in names if name.startswith("etadlite/")} == modules | {
        "etadlite/py.typed",
        "etadlite/encoders/tiny_r2plus1d.safetensors",
        *(f"etadlite/course/questions/{name}.toml" for name in quiz_names()),
    }
    data = f"etadlite-{__version__}.data/data/share/etadlite/"
    course = {name.removeprefix(data) for name in names if name.startswith(data)}
    assert course == {path.as_posix() for path in course_files(REPOSITORY)}
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *distributions],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("PASSED") == 2


@pytest.mark.slow
def test_an_installed_wheel_writes_the_course_and_trains(installed, tmp_path):
    """From the wheel to first detections with two commands, far from the repository."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "COLUMNS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}

    def etadlite(*arguments, cwd=tmp_path):
        done = subprocess.run(
            [installed / "etadlite", *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert etadlite("--version") == f"etadlite {__version__}\n"
    (package,) = installed.parent.rglob("etadlite/__init__.py")  # not the repository's
    assert __version__ in package.read_text()

    etadlite("course", "my_course")
    course = tmp_path / "my_course"
    printed = etadlite("notebook", "00_quickstart", "-p", "profile", "smoke", cwd=course)
    out = course / "runs" / "00_quickstart"
    assert f"metrics   {out / 'metrics.json'}" in printed
    checkpoints = list(out.rglob("checkpoint.safetensors"))
    assert checkpoints
    assert (course / "data" / "stickfigures_smoke" / "annotations.json").exists()
