"""The exercises: a solution is right, plausible mistakes are named, a stub breaks nothing."""

import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest

from etadlite.base.errors import InputError
from etadlite.course import check
from etadlite.course.build import main, notebook_names, notebooks_folder
from etadlite.course.exercises import CHECKERS
from etadlite.course.source import (
    HEADING,
    assignment,
    is_exercise,
    read_source,
    solution,
    stub,
    without_marks,
)

FOLDER = notebooks_folder()


@cache
def cells_of(name):
    return read_source(FOLDER / "source" / f"{name}.py")


def checked(cell):
    """What an exercise gives to its checkers: pairs of exercise and function."""
    return re.findall(r'check\("(\w+)", (\w+)\)', cell.source)


def load(path):
    spec = importlib.util.spec_from_file_location(f"wrong_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRONG = {
    exercise: answers
    for path in sorted((Path(__file__).parent / "exercises").glob("*.py"))
    for exercise, answers in load(path).WRONG.items()
}
EXERCISES = [
    pytest.param(name, position, id=f"{name}-{cell.id}")
    for name in notebook_names(FOLDER)
    for position, cell in enumerate(cells_of(name))
    if is_exercise(cell)
]


def scope_of(cells):
    """What an assignment gives to its exercises; no other cell is run."""
    scope: dict = {}
    for cell in cells:
        if "assignment" in cell.metadata.tags:
            exec(cell.source, scope)
    return scope


def run_as_notebook(code, scope, exercise):
    """The exercise's cell up to its first checker."""
    lines = code.splitlines()
    last = next(i for i, line in enumerate(lines) if f'check("{exercise}"' in line)
    exec("\n".join(lines[:last]), scope)


@pytest.mark.parametrize(("name", "position"), EXERCISES)
def test_a_solution_passes_and_the_stub_breaks_nothing(name, position, capsys):
    cells = cells_of(name)
    scope = scope_of(cells[:position])
    assert scope["check"] is check
    found = checked(cells[position])
    assert found, "an exercise gives its answer to check()"
    for exercise, expression in found:
        run_as_notebook(stub(cells[position]), scope, exercise)
        assert not check(exercise, eval(expression, scope))
        assert "not attempted" in capsys.readouterr().out
        run_as_notebook(without_marks(cells[position].source), scope, exercise)
        assert check(exercise, eval(expression, scope)), capsys.readouterr().out


@pytest.mark.parametrize("exercise", CHECKERS)
def test_plausible_mistakes_are_told_apart(exercise, capsys):
    answers = WRONG[exercise]
    assert len(answers) >= 3
    assert len({hint for _, hint in answers}) >= 2
    for answer, hint in answers:
        assert not check(exercise, answer)
        said = capsys.readouterr().out
        assert hint in said
        assert len(said.strip().splitlines()) == 1


def test_every_exercise_has_a_checker_and_every_checker_an_exercise():
    used = [
        exercise
        for name in notebook_names(FOLDER)
        for cell in cells_of(name)
        if is_exercise(cell)
        for exercise, _ in checked(cell)
    ]
    assert sorted(used) == sorted(CHECKERS)
    assert sorted(WRONG) == sorted(CHECKERS)


@pytest.mark.parametrize(
    ("exercise", "attempt", "said"),
    [
        ("nothing", lambda: 0, "no exercise"),
        ("tiou", "not a function", "write a function"),
        ("tiou", ..., "not attempted"),
    ],
)
def test_what_is_no_attempt_is_said_so(exercise, attempt, said, capsys):
    assert not check(exercise, attempt)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("name", notebook_names(FOLDER))
def test_every_exercise_can_be_handed_out(name):
    cells = cells_of(name)
    handed_out = assignment(cells)
    points = [cell.metadata.get("nbgrader", {}).get("points", 0) for cell in handed_out.cells]
    assert len([point for point in points if point]) == len([c for c in cells if is_exercise(c)])


def test_an_exercise_without_a_heading_is_refused(tmp_path):
    source = tmp_path / "source.py"
    source.write_text(
        "# %% title [markdown]\n# # T\n\n# %% exercise\n"
        "def f():\n    # BEGIN SOLUTION\n    return 1\n    # END SOLUTION\n"
    )
    with pytest.raises(InputError, match="exercise needs a heading before it"):
        assignment(read_source(source))
    assert HEADING.search("### 3 · A sampler (harder, 15 minutes)").groups() == ("harder", "15")


def nbgrader(folder, *words):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path}
    command = [sys.executable, "-m", "nbgrader", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Object of type")  # nbgrader's use of its database
def test_a_right_and_a_wrong_submission_are_graded(tmp_path):
    """What is handed out holds no solution; solved, it gets all points; a mistake loses some."""
    from nbgrader.api import Gradebook

    name = "00_quickstart"
    main([name, "--assignments", str(tmp_path)])
    nbgrader(tmp_path, "generate_assignment", name, "--force", "--create")
    handed_out = nbformat.read(tmp_path / "release" / name / f"{name}.ipynb", as_version=4)
    assert "SOLUTION" not in nbformat.writes(handed_out)
    assert nbformat.writes(handed_out).count("return ...") == 3
    own = {cell.id: solution(cell) for cell in cells_of(name) if is_exercise(cell)}
    for student, mistake in (("right", ""), ("wrong", "+ 1")):
        for cell in handed_out.cells:
            if cell.id in own:
                function = own[cell.id]
                cell.source = f"{function} {mistake}" if cell.id == "exercise-2" else function
        target = tmp_path / "submitted" / student / name / f"{name}.ipynb"
        target.parent.mkdir(parents=True)
        nbformat.write(handed_out, target)
    nbgrader(tmp_path, "autograde", name, "--create")
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:
        scores = {
            student: (found.score, found.max_score)
            for student in ("right", "wrong")
            for found in [book.find_submission(name, student)]
        }
    assert scores == {"right": (6, 6), "wrong": (4, 6)}
