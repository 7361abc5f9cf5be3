"""The exercises: a solution is right, plausible mistakes are named, a stub breaks nothing."""

import ast
import importlib.util
from pathlib import Path

import pytest

from etadlite.course import check
from etadlite.course.build import notebook_names, notebooks_folder
from etadlite.course.checks import CHECKERS
from etadlite.course.source import checked, read_source, solved, stub

FOLDER = notebooks_folder()


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
    pytest.param(name, position, id=f"{name}-{cell.name}")
    for name in notebook_names(FOLDER)
    for position, cell in enumerate(read_source(FOLDER / "source" / f"{name}.py"))
    if cell.exercise
]


def scope_before(cells):
    """What the cells import and define; nothing else of them is run."""
    scope: dict = {}
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    for cell in cells:
        if not cell.markdown and not cell.exercise:
            body = [node for node in ast.parse(cell.text).body if isinstance(node, kept)]
            exec(compile(ast.Module(body, []), cell.name, "exec"), scope)
    return scope


def run_as_notebook(code, scope, exercise):
    """The exercise's cell up to its first checker."""
    lines = code.splitlines()
    last = next(i for i, line in enumerate(lines) if f'check("{exercise}"' in line)
    exec("\n".join(lines[:last]), scope)


@pytest.mark.parametrize(("name", "position"), EXERCISES)
def test_a_solution_passes_and_the_stub_breaks_nothing(name, position, capsys):
    cells = read_source(FOLDER / "source" / f"{name}.py")
    scope = scope_before(cells[:position])
    found = checked(cells[position])
    assert found, "an exercise gives its answer to check()"
    for exercise, expression in found:
        run_as_notebook(stub(cells[position]), scope, exercise)
        assert not check(exercise, eval(expression, scope))
        assert "not attempted" in capsys.readouterr().out
        run_as_notebook(solved(cells[position]), scope, exercise)
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
        for cell in read_source(FOLDER / "source" / f"{name}.py")
        if cell.exercise
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
