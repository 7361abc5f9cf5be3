"""The student's module: right answers are saved and used, all else leaves the course running."""

import linecache
from contextlib import nullcontext
from functools import cache, partial
from itertools import count

import numpy as np
import pytest
import torch

from etadlite.base.draws import Draws
from etadlite.course import start
from etadlite.course.build import notebook_names, notebooks_folder, solved_module
from etadlite.course.exercises import CHECKERS, check
from etadlite.course.parts import FILE, HEAD, PARTS, load_part, part_of, with_part
from etadlite.course.source import is_exercise, read_source, solution
from etadlite.data.datasets import collate
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.sampling.proposals import ProposalContext, proposal_count, random_proposals
from etadlite.sampling.snippets import grid_snippets, snippet_count
from etadlite.training.loop import make_optimizer
from etadlite.training.losses import detection_loss
from etadlite.training.step import train_step
from etadlite.training.targets import make_targets

FOLDER = notebooks_folder()
NUMBERS = count()


def defined(code, name, scope=None):
    """A function as a notebook's cell defines it: its source can be read."""
    cell = f"<cell {next(NUMBERS)}>"
    linecache.cache[cell] = (len(code), None, code.splitlines(keepends=True), cell)
    scope = {"torch": torch, "np": np} if scope is None else scope
    exec(compile(code, cell, "exec"), scope)
    return scope[name]


RIGHT = """def with_positives(context, count):
    luck = context.draws.rand(len(context.proposals))
    for own, actions in zip(luck, context.actions, strict=True):
        if len(actions):
            own[tiou(actions[:, None], context.proposals).argmax(dim=1)] = 2
    return context.proposals[luck.topk(count, dim=1).indices]
"""
WRONG = RIGHT.replace("= 2", "= 0")


@pytest.fixture
def right():
    from etadlite.base.segments import tiou

    return defined(RIGHT, "with_positives", {"tiou": tiou})


def solutions():
    """The texts of the solutions of all notebooks, by notebook and cell."""
    return {
        (name, cell.id): solution(cell)
        for name in notebook_names(FOLDER)
        for cell in read_source(FOLDER / "source" / f"{name}.py")
        if is_exercise(cell)
    }


def test_a_right_answer_is_saved_as_plain_text_and_used_from_then_on(tmp_path, right):
    file = tmp_path / FILE
    used, line = part_of(file, "with_positives", right)
    assert line == "with_positives: the cells below use your function from my_etad.py."
    assert file.read_text() == f"{HEAD}\n\n{RIGHT}"
    assert used.__wrapped__.__code__.co_filename == FILE
    later, line = part_of(file, "with_positives")  # in another notebook
    assert "as it was saved before" in line
    assert check("with_positives", later)


def test_a_part_is_replaced_and_all_else_in_the_file_stays():
    before, after = "def helper():\n    return 1\n\n\n# mine", "def after():\n    pass\n"
    text = f"{HEAD}\n\n{before}\n\n\n{RIGHT}\n\n{after}"
    other = "@torch.no_grad()\ndef with_positives(context, count):\n    return 5\n"
    changed = with_part(text, "with_positives", other)
    assert changed == text.replace(RIGHT, other)
    assert with_part(changed, "with_positives", RIGHT) == text


def test_a_wrong_answer_is_not_saved_and_the_package_stands_in(tmp_path, right):
    file = tmp_path / FILE
    for code in (WRONG, "def with_positives(context, count):\n    return ...\n"):
        used, line = part_of(file, "with_positives", defined(code, "with_positives"))
        assert used is PARTS["with_positives"].package
        assert (
            line == "with_positives: the cells below use the package's function (random proposals)."
        )
        assert not file.exists()
    part_of(file, "with_positives", right)
    text = file.read_text()
    used, line = part_of(file, "with_positives", defined(WRONG, "with_positives"))
    assert file.read_text() == text
    assert "your function from my_etad.py, as it was saved before" in line


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (partial, "write it as def with_positives(...)"),
        (
            lambda right: defined(
                "def with_positives(*given):\n    return helper(*given)\n",
                "with_positives",
                {"helper": right},
            ),
            "alone in my_etad.py it does not pass (your function raised NameError: name 'helper' "
            "is not defined); define what it needs within it",
        ),
    ],
)
def test_an_answer_that_does_not_stand_alone_is_not_saved_and_told_why(
    tmp_path, right, answer, said
):
    file = tmp_path / FILE
    used, line = part_of(file, "with_positives", answer(right))
    assert used is PARTS["with_positives"].package
    assert said in line
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:\n", "line 1 of my_etad.py is no Python (invalid syntax); repair or delete"),
        ("\0", "is no Python"),
        ("import no_such_module\n", "cannot be loaded (ModuleNotFoundError: No module named"),
        ("import torch\nopen('harm', 'w')\n", "line 2 of my_etad.py is neither an import nor"),
        ("def with_positives(context, count):\n    return 1\n", "the one in my_etad.py does not"),
    ],
)
def test_a_broken_file_is_one_sentence_and_stays_as_it_is(tmp_path, right, text, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / FILE
    file.write_text(text)
    used, line = part_of(file, "with_positives")
    assert used is PARTS["with_positives"].package
    assert said in line
    assert len(line.splitlines()) == 1
    assert not (tmp_path / "harm").exists()
    if "the one in" not in said:  # a right answer does not overwrite what cannot be read
        assert said in part_of(file, "with_positives", right)[1]
        assert file.read_text() == text


@pytest.mark.parametrize("exercise", PARTS)
def test_every_part_is_an_exercise_that_a_notebook_uses(exercise):
    assert exercise in CHECKERS
    sources = [path.read_text(encoding="utf-8") for path in (FOLDER / "source").glob("*.py")]
    assert any(f'run.mine("{exercise}", {exercise})' in source for source in sources)


@pytest.mark.parametrize("exercise", PARTS)
def test_the_answer_of_any_form_becomes_a_tensor(exercise, tmp_path, monkeypatch):
    # Reading nested lists takes lines of Python, too.
    monkeypatch.setattr("etadlite.course.exercises.detector.at_most", lambda *_: nullcontext())
    if not PARTS[exercise].is_tensor:
        pytest.skip("the cells take it as it is")
    code = next(text for text in solutions().values() if f"def {exercise}(" in text)
    as_list = code.replace(f"def {exercise}(", "def solved(")
    names = code[code.index("(") : code.index("):") + 1]
    indented = "\n".join(f"    {line}" for line in as_list.splitlines())
    listed = f"def {exercise}{names}:\n{indented}\n\n    return solved{names}.tolist()\n"
    text = f"{HEAD}\n\n{listed}"
    (tmp_path / FILE).write_text(text)
    used, line = part_of(tmp_path / FILE, exercise)
    assert "your function" in line
    assert load_part(tmp_path / FILE, exercise)
    kinds = []

    def noted(*given):
        kinds.append(type(used(*given)))
        return used(*given)

    assert check(exercise, noted)
    assert set(kinds) == {torch.Tensor}


def test_a_run_without_a_person_writes_into_its_folder_and_reads_the_students(
    tmp_path, monkeypatch, right, capsys
):
    monkeypatch.chdir(tmp_path)
    given = {
        "profile": "smoke",
        "data_root": "data",
        "out_dir": "out",
        "seed": 0,
        "device": "cpu",
        "interactive": "auto",
    }
    asked = "# Parameters\nout_dir = 'out'"
    start([asked], **given).mine("with_positives", right)
    assert (tmp_path / "out" / FILE).exists()
    assert not (tmp_path / FILE).exists()
    start(["# Parameters of this notebook\nprofile = 'smoke'"], **given).mine(
        "with_positives", right
    )
    text = (tmp_path / FILE).read_text()
    capsys.readouterr()
    start([asked], **given).mine("with_positives")
    assert "your function from my_etad.py" in capsys.readouterr().out
    assert (tmp_path / "out" / FILE).read_text() == text


@cache
def solved():
    """The functions of a student who has solved everything."""
    scope = {}
    exec(solved_module(FOLDER), scope)
    return scope


@pytest.mark.parametrize("exercise", PARTS)
def test_the_package_stands_in_for_a_part_with_the_same_answer(exercise, capsys):
    part = PARTS[exercise]
    if part.name:
        pytest.skip(f"the package has another one, {part.name}")
    assert check(exercise, part.package), capsys.readouterr().out


def assembled(**parts):
    """What section 8 of notebook 04 defines, with these functions as the student's."""
    cells = {c.id: c.source for c in read_source(FOLDER / "source" / "04_proposal_sampling.py")}
    scope = {
        "torch": torch,
        "System": System,
        "Draws": Draws,
        "ProposalContext": ProposalContext,
        "proposal_count": proposal_count,
        "make_targets": make_targets,
        "detection_loss": detection_loss,
        **parts,
    }
    for cell in ("own-rois", "own-loss", "own-chances", "own-step"):
        exec(cells[cell], scope)
    return scope


@pytest.mark.parametrize("module", ["solved", "empty"])
def test_the_students_parts_train_like_the_package(module):
    """Four steps with the solutions, and the package's samplers, have the package's losses.

    So do they from an empty module, where the package's functions stand in for all parts.
    """
    chosen = preset("e2e_stickfigures").changed(
        [
            *("data.snippets=16", "detector.max_duration=8", "encoder.chunk_size=16"),
            *("detector.hidden=32", "detector.head=16", "detector.width=32", "device=cpu"),
            *("sampling.snippet_strategy=grid", "sampling.rescale=true"),
            "sampling.snippet_ratio=0.3",
        ]
    )
    stream = torch.Generator().manual_seed(0)
    snippets = torch.randint(256, (2, 16, 3, 8, 24, 24), generator=stream, dtype=torch.uint8)
    actions = [torch.tensor([[2.0, 6.5], [9.0, 12.0]]), torch.tensor([[5.0, 13.0]])]
    labels = [torch.tensor([0, 3]), torch.tensor([5])]

    def batch(number):
        batch = collate([])
        return batch._replace(
            names=["a", "b"],
            inputs=snippets,
            actions=actions,
            labels=labels,
            seeds=[number, 50 + number],
        )

    own = {"solved": solved(), "empty": {name: part.package for name, part in PARTS.items()}}
    parts = own[module] | {"stratified": grid_snippets, "with_positives": random_proposals}
    scope = assembled(**parts)
    scope |= {"settings": chosen, "classes": len(chosen.detector.classes)}
    mine = scope["my_system"](chosen)
    torch.manual_seed(chosen.seed)
    theirs = System(chosen).train()
    losses = {"mine": [], "theirs": []}
    of_mine, of_theirs = (make_optimizer(one, chosen.training) for one in (mine, theirs))
    chances = torch.full((16,), snippet_count(16, 0.3) / 16)
    for number in range(4):
        losses["mine"].append(scope["my_step"](mine, batch(number), of_mine, chosen, chances))
        losses["theirs"].append(train_step(theirs, batch(number), of_theirs, chosen)["loss"])
    assert losses["mine"] == pytest.approx(losses["theirs"], rel=1e-3)
    assert len({round(loss, 2) for loss in losses["mine"]}) == 4


@pytest.mark.parametrize("exercise", [name for name, part in PARTS.items() if not part.name])
def test_what_stands_in_for_a_skipped_exercise_solves_it(exercise, capsys):
    assert check(exercise, PARTS[exercise].package), capsys.readouterr().out
