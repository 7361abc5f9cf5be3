"""The exercises: a solution is right, plausible mistakes are named, a stub breaks nothing."""

import ast
import importlib.util
import math
import os
import random
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

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


WRONG: dict = {}
RIGHT: dict = {}
for path in sorted((Path(__file__).parent / "exercises").glob("*.py")):
    for corpus in ("WRONG", "RIGHT"):
        for exercise, answers in getattr(load(path), corpus, {}).items():
            globals()[corpus].setdefault(exercise, []).extend(answers)
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
    assert len(answers) >= 10
    assert len({hint for _, hint in answers}) >= 2
    faults = []
    for answer, hint in answers:
        accepted = check(exercise, answer)
        said = capsys.readouterr().out
        named = any(part in said for part in hint.split("|"))  # one of these parts
        if accepted or not named or len(said.strip().splitlines()) != 1 or "checker itself" in said:
            faults.append(f"{getattr(answer, '__name__', answer)}: {hint} <- {said}")
    assert not faults, "\n".join(faults)


def test_a_loop_that_never_ends_is_stopped(monkeypatch, capsys):
    monkeypatch.setattr("etadlite.course.exercises.form.LONGEST", 0.3)

    def forever(*arguments):
        while True:
            pass

    for exercise in ("tiou", "roi_weights", "three_passes"):
        assert not check(exercise, forever)
        assert capsys.readouterr().out == (
            f"{exercise}: your function does not end: is there a loop that never stops?\n"
        )


def test_the_corpus_is_large():
    assert sum(map(len, WRONG.values())) >= 540
    assert sum(map(len, RIGHT.values())) >= 145


@pytest.mark.parametrize("exercise", CHECKERS)
def test_right_answers_of_any_form_pass(exercise, capsys):
    assert RIGHT[exercise]
    for answer in RIGHT[exercise]:
        assert check(exercise, answer), f"{answer}: {capsys.readouterr().out}"


@cache
def solutions():
    """Exercise -> its solution from the notebook, as a function."""
    found = {}
    for name in notebook_names(FOLDER):
        cells = cells_of(name)
        for position, cell in enumerate(cells):
            if is_exercise(cell):
                scope = scope_of(cells[:position])
                (pair,) = checked(cell)
                run_as_notebook(without_marks(cell.source), scope, pair[0])
                found[pair[0]] = scope[pair[1]]
    return found


class Failing:
    """A value whose use fails in whatever way it is read."""

    def __float__(self):
        raise KeyError("read")

    __iter__ = __len__ = __bool__ = __float__


class Always(float):
    """A number that claims to equal everything."""

    def __eq__(self, other):
        return True

    def __sub__(self, other):
        return 0.0

    __rsub__ = __sub__
    __hash__ = None


def raising(error):
    def answer(*arguments):
        raise error

    return answer


@pytest.mark.parametrize("exercise", CHECKERS)
def test_what_is_no_answer_is_named_and_is_never_the_checkers_error(exercise, capsys):
    """Nothing, errors, texts, odd dtypes and devices: of every exercise, each with its sentence."""
    unfit = "return|shape|whole|number|tensor|real|device|lengths|should|saw 0"
    for answer, hint in (
        (lambda *_: None, "returns nothing"),
        (lambda *_: ..., "not attempted yet"),
        (raising(ValueError("no")), "ValueError: no"),
        (raising(SystemExit(0)), "SystemExit: 0"),
        (raising(NotImplementedError()), "NotImplementedError"),
        (lambda: 1, "TypeError"),
        (lambda *_: "1", unfit),
        (lambda *_: {1.0}, unfit),
        (lambda *_: {}, unfit),
        (lambda *_: [], unfit),
        (lambda *_: [[1.0], [1.0, 2.0]], unfit),
        (lambda *_: [None, 1.0], unfit),
        (lambda *_: object(), unfit),
        (lambda *_: Failing(), unfit),
        (lambda *_: Always(1.0), "should|return|shape|tensor|saw 0"),
        (lambda *_: torch.empty(2, 2, device="meta"), unfit),
        (lambda *_: torch.tensor(1 + 2j), unfit + "|should"),
        (lambda *_: np.array(["a"]), unfit),
        (lambda *_: np.array([{}], dtype=object), unfit),
        (lambda *_: math.nan, "should|return|shape|tensor|without|saw 0"),
        (lambda *_: torch.tensor([math.nan]), "should|return|shape|lost|whole|saw 0"),
    ):
        assert not check(exercise, answer), hint
        said = capsys.readouterr().out
        assert any(part in said for part in hint.split("|")), said
        assert "checker itself" not in said
        assert len(said.strip().splitlines()) == 1


NUMBERS = {  # exercises whose answer is one number; the others answer with several
    *("tiou", "step_cost", "conv_bytes", "sampling_error", "average_precision"),
    *("epochs_until", "hours_left", "seconds_of", "seconds", "best_threshold"),
}
WHOLE = {"conv_bytes", "epochs_until"}
SLOPES = {"push", "balanced_bce", "three_passes"}  # their answer has, or leaves, a gradient


@pytest.mark.parametrize("exercise", sorted(set(CHECKERS) - SLOPES))
def test_the_form_of_a_right_answer_does_not_matter(exercise, capsys):
    solve = solutions()[exercise]
    if exercise in NUMBERS:
        forms = [
            float,
            np.float64,
            lambda x: torch.tensor(float(x), dtype=torch.float64),
            lambda x: np.array([float(x)]),
            lambda x: torch.tensor([[float(x)]], dtype=torch.float64),
        ]
        forms += [int, np.int64] if exercise in WHOLE else [np.float32, torch.tensor]
    else:
        forms = [
            torch.as_tensor,
            lambda x: torch.as_tensor(x).numpy(),
            lambda x: torch.as_tensor(x).tolist(),
            lambda x: tuple(torch.as_tensor(x)),
            lambda x: [row.numpy() for row in torch.as_tensor(x)],
        ]
        if exercise not in ("evenly", "stratified", "hard_nms"):
            forms += [lambda x: x.float(), lambda x: x.double()]
    for form in forms:
        assert check(exercise, lambda *given, form=form: form(solve(*given))), (
            capsys.readouterr().out
        )


@pytest.mark.parametrize("exercise", sorted(set(CHECKERS) - {"push", "hard_nms", "seconds"}))
def test_almost_right_is_wrong(exercise, capsys):
    """A thousandth too much, and one number of many that is off."""

    def off(given):
        return given * 1.002 if exercise in NUMBERS else torch.as_tensor(given).double() * 1.002

    def one_off(given):
        changed = torch.as_tensor(given).clone().double()
        changed.view(-1)[-1] += 0.01
        return changed

    for change in (off, one_off):
        assert not check(exercise, lambda *given, c=change: c(solutions()[exercise](*given)))
        assert "checker itself" not in capsys.readouterr().out


def test_an_error_of_the_checker_is_not_the_students(monkeypatch, capsys):
    def broken(attempt):
        raise RuntimeError("oh")
        yield

    monkeypatch.setitem(CHECKERS, "tiou", broken)
    assert not check("tiou", solutions()["tiou"])
    assert "the checker itself failed (RuntimeError: oh)" in capsys.readouterr().out


def test_checking_draws_nothing_from_the_notebooks_generators():
    before = torch.get_rng_state(), random.getstate()
    for exercise, solve in solutions().items():
        assert check(exercise, solve)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


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


def bound(code):
    """The names that a cell imports."""
    imports = (n for n in ast.walk(ast.parse(code)) if isinstance(n, (ast.Import, ast.ImportFrom)))
    return {alias.asname or alias.name for node in imports for alias in node.names}


@pytest.mark.parametrize("name", notebook_names(FOLDER))
def test_what_an_assignment_imports_for_its_exercises_the_notebook_has_imported(name):
    there = set()
    for cell in (cell for cell in cells_of(name) if cell.cell_type == "code"):
        if "assignment" in cell.metadata.tags:
            assert bound(cell.source) <= there, cell.id
        else:
            there |= bound(cell.source)


@pytest.mark.parametrize("name", notebook_names(FOLDER))
def test_every_exercise_can_be_handed_out(name):
    cells = cells_of(name)
    handed_out = assignment(cells)
    points = [cell.metadata.get("nbgrader", {}).get("points", 0) for cell in handed_out.cells]
    assert len([point for point in points if point]) == len([c for c in cells if is_exercise(c)])


@pytest.mark.parametrize("name", notebook_names(FOLDER))
def test_what_is_graded_knows_nothing_of_the_students_own_module(name):
    codes = [c.source for c in assignment(cells_of(name)).cells if c.cell_type == "code"]
    assert not re.search(r"my_etad|\.mine\(|course\.parts", "\n".join(codes))


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
def test_right_wrong_empty_and_cheating_submissions_are_graded(tmp_path):
    """What is handed out holds no solution; solved, it gets all points; a mistake loses some;
    an empty or a cheating one gets none."""
    from nbgrader.api import Gradebook

    name = "00_quickstart"
    main([name, "--assignments", str(tmp_path)])
    nbgrader(tmp_path, "generate_assignment", name, "--force", "--create")
    handed_out = nbformat.read(tmp_path / "release" / name / f"{name}.ipynb", as_version=4)
    assert "SOLUTION" not in nbformat.writes(handed_out)
    assert nbformat.writes(handed_out).count("return ...") == 3
    assert "HIDDEN" not in nbformat.writes(handed_out)
    own = {cell.id: solution(cell) for cell in cells_of(name) if is_exercise(cell)}
    empty = dict.fromkeys(own, "")
    wrong = own | {"exercise-2": own["exercise-2"] + " + 1"}
    cheats = {
        "redefines": "def check(*_):\n    return True\n",
        "patches": "import etadlite.course, etadlite.course.exercises as e\n"
        "e.check = etadlite.course.check = lambda *_: True\n"
        "e.CHECKERS.update({name: lambda _: iter(()) for name in e.CHECKERS})\n"
        "e.form.number = e.form.tensor = lambda *_, **__: 1 / 3\n",
        "shadows": "import sys; from pathlib import Path\n"
        "Path('etadlite/course').mkdir(parents=True)\n"
        "Path('etadlite/course/exercises.py').write_text('def check(*_): return True')\n"
        "sys.path.insert(0, ''); mine = [n for n in sys.modules if 'etadlite' in n]\n"
        "for n in mine: del sys.modules[n]\n"
        "from etadlite.course.exercises import check\n",
        "imports": "import importlib, subprocess\nfrom types import SimpleNamespace as Fake\n"
        "importlib.import_module = lambda _: Fake(check=lambda *_: True)\n"
        "subprocess.run = lambda *_, **__: Fake(stdout='[[], []]')\n",
        "elsewhere": "import sys, tempfile; from pathlib import Path\n"
        "place = tempfile.mkdtemp(); course = Path(place, 'etadlite', 'course')\n"
        "course.mkdir(parents=True)\n"
        "(course / 'exercises.py').write_text('def check(*_): return True')\n"
        "sys.path.insert(0, place)\n",
        "hooks": "import sys; from importlib.machinery import ModuleSpec\n"
        "class Hook:\n"
        "    def find_spec(self, name, *_):\n"
        "        return ModuleSpec(name, self, is_package=True) if 'etad' in name else None\n"
        "    def create_module(self, spec): return None\n"
        "    def exec_module(self, module): module.check = lambda *_: True\n"
        "sys.meta_path.insert(0, Hook())\n",
        "replaces-import": "import builtins, types\n"
        "old = builtins.__import__\n"
        "fake = types.SimpleNamespace(check=lambda *_: True)\n"
        "builtins.__import__ = lambda n, *a: fake if 'etad' in n else old(n, *a)\n",
    }
    submissions = {
        "right": own,
        "wrong": wrong,
        "empty": empty,
        "breaks-check": {key: code + "\ncheck = None" for key, code in own.items()},
        **{
            who: {"exercise-1": code, "exercise-2": "step_cost = 1"} for who, code in cheats.items()
        },
    }
    locked = {f"{key}-check": "pass" for key in own}
    submissions["rewrites-the-check"] = locked | {"exercise-1": "tiou = 1"}
    submissions["deletes-cells"] = {}
    for student, answers in submissions.items():
        done = nbformat.from_dict(handed_out)
        for cell in done.cells:
            cell.source = answers.get(cell.id, cell.source)
            if student == "rewrites-the-check" and cell.metadata.get("nbgrader"):
                cell.metadata.nbgrader.points = 100
        if student == "deletes-cells":
            done.cells = [cell for cell in done.cells if cell.id not in own | locked]
        target = tmp_path / "submitted" / student / name / f"{name}.ipynb"
        target.parent.mkdir(parents=True)
        nbformat.write(done, target)
        # Nothing reads the student's own module, least of all executes it.
        harm = f"open({str(tmp_path / 'harm')!r}, 'w')\n"
        (target.parent / "my_etad.py").write_text(harm + "\n".join(own.values()))
    nbgrader(tmp_path, "autograde", name, "--create")
    assert not (tmp_path / "harm").exists()
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:
        scores = {
            student: (found.score, found.max_score)
            for student in submissions
            for found in [book.find_submission(name, student)]
        }
    nothing = ("empty", "rewrites-the-check", "deletes-cells", *cheats)
    none = dict.fromkeys(nothing, (0, 6))
    assert scores == none | {"right": (6, 6), "wrong": (4, 6), "breaks-check": (6, 6)}
