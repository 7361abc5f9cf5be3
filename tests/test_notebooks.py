"""The notebooks: each runs, says what it found, and keeps the rules of its form."""

import json
import re
from functools import cache
from pathlib import Path

import ipywidgets
import nbformat
import papermill
import pytest
from matplotlib.figure import Figure
from papermill.exceptions import PapermillExecutionError

from etadlite.course import check
from etadlite.course.card import card_table, put_card, recorded
from etadlite.course.checks import CHECKERS
from etadlite.course.notebook import PARAMETERS, start
from etadlite.errors import InputError

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
SYSTEMS = ("feature-based", "end to end, 30 % of the snippets", "end to end, all snippets")


@cache
def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def sources(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == kind]


def execute(path: Path, target: Path, **parameters: object) -> nbformat.NotebookNode:
    return papermill.execute_notebook(
        path,
        target,
        parameters,
        cwd=FOLDER,
        kernel_name="python3",
        progress_bar=False,
    )


def every_notebook(function):
    return pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)(function)


@every_notebook
def test_the_form_is_kept(path):
    codes, texts = sources(path, "code"), sources(path, "markdown")
    assert 45 <= len(codes) + len(texts) <= 70
    assert max(len(code.splitlines()) for code in codes) <= 25
    assert sum(len(text.split()) for text in texts) <= 2500
    assert max(len(line) for code in codes for line in code.splitlines()) <= 100
    identities = [cell.id for cell in read(path).cells]
    assert len(set(identities)) == len(identities)
    for code in codes:
        compile(code, path.name, "exec")


@every_notebook
def test_the_parameters_are_those_of_every_notebook(path):
    tagged = [c for c in read(path).cells if "parameters" in c.metadata.get("tags", ())]
    assert len(tagged) == 1
    names: dict[str, object] = {}
    exec(tagged[0].source, names)
    assert [name for name in names if name != "__builtins__"] == list(PARAMETERS)
    assert names["profile"] == "laptop"


@every_notebook
def test_committed_outputs_name_no_machine(path):
    for cell in read(path).cells:
        outputs = json.dumps(cell.get("outputs", []))
        assert not re.search(r"/(work|tmp|home|root|Users)/|site-packages", outputs), cell.id


@every_notebook
def test_the_card_states_the_recorded_runtimes(path):
    runtimes = json.loads((FOLDER / "runtimes.json").read_text(encoding="utf-8"))
    assert card_table(runtimes[path.stem]) in sources(path, "markdown")[0]


@every_notebook
def test_the_folded_solutions_satisfy_their_checkers(path, capsys):
    exercises = [code for code in sources(path, "code") if "check(" in code]
    solutions = [text for text in sources(path, "markdown") if "<summary>Solution" in text]
    assert len(exercises) == len(solutions) >= 2
    for exercise, solution in zip(exercises, solutions, strict=True):
        name, function = re.search(r'check\("(\w+)", (\w+)\)', exercise).groups()
        scope: dict = {"check": check}
        exec("import torch", scope)
        exec(re.search(r"```python\n(.*?)```", solution, re.DOTALL)[1], scope)
        assert check(name, scope[function]), capsys.readouterr().out
        exec(exercise.partition("\n\n\n")[0], scope)  # as handed out: not attempted
        assert not check(name, scope[function])
        assert "not attempted" in capsys.readouterr().out


def test_the_quickstart_runs_and_measures_what_it_claims(tmp_path):
    out = tmp_path / "out"
    done = execute(
        FOLDER / "00_quickstart.ipynb",
        tmp_path / "done.ipynb",
        profile="smoke",
        data_root=str(tmp_path / "data"),
        out_dir=str(out),
        device="cpu",
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["profile"], metrics["device"]) == ("smoke", "cpu")
    assert tuple(metrics["systems"]) == SYSTEMS
    for report in metrics["systems"].values():
        assert 0 <= report["average_mAP"] <= 1
        assert list(report["mAP"]) == ["0.3", "0.4", "0.5", "0.6", "0.7"]
        assert report["peak_activation_bytes"] > 2**20
    assert metrics["gradient_difference"] < 1e-10

    plain, ours = (metrics["activation_bytes"][name] for name in ("plain", "sequential"))
    assert plain[-1] == 4 * plain[0]  # four times the snippets
    assert max(ours) - min(ours) < 0.01 * min(ours)
    assert max(ours) == pytest.approx(plain[0], rel=0.05)  # as many snippets as a chunk has
    assert metrics["cosine"]["1.0"] == pytest.approx(1, abs=1e-4)
    memory = metrics["compare"]["memory"]
    assert memory["measured"] == pytest.approx(memory["predicted"], rel=0.1)

    table = (out / "table.txt").read_text()
    assert all(name in table for name in SYSTEMS)
    pictures = {path.stem for path in (out / "pictures").glob("*.png")}
    assert {"ground_truth", "curves", "threshold", "timeline_validation_00000"} <= pictures
    outputs = json.dumps([cell.get("outputs", []) for cell in done.cells])
    assert str(tmp_path) not in outputs
    assert "epoch  1 of 1" in outputs
    shown = [
        o for c in done.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert len(shown) >= 8
    assert all(len(o.metadata.get("image/png", o.metadata).get("alt", "")) > 20 for o in shown)


def test_a_misspelt_parameter_is_refused(tmp_path):
    with pytest.raises(PapermillExecutionError, match='did you mean "profile"'):
        execute(FOLDER / "00_quickstart.ipynb", tmp_path / "done.ipynb", profil="smoke")


@pytest.mark.parametrize(
    ("parameter", "value", "complaint"),
    [
        ("profile", "lapotp", "there is no profile"),
        ("seed", -1, "seed must be"),
        ("seed", True, "seed must be"),
        ("interactive", "yes", "interactive must be"),
        ("device", "cuda:7", "there is no device"),
    ],
)
def test_a_parameter_of_a_wrong_value_is_refused(tmp_path, parameter, value, complaint):
    given = {
        "profile": "smoke",
        "data_root": str(tmp_path),
        "out_dir": str(tmp_path),
        "seed": 0,
        "device": "cpu",
        "interactive": "auto",
    }
    with pytest.raises(InputError, match=complaint):
        start([], **given | {parameter: value})


@pytest.mark.parametrize(
    ("exercise", "attempt", "said"),
    [
        ("tiou", lambda a, b: (min(a[1], b[1]) - max(a[0], b[0])) / (b[1] - a[0]), "negative"),
        ("tiou", lambda a, b: 1 / 0, "raised ZeroDivisionError"),
        ("tiou", "not a function", "write a function"),
        ("step_cost", lambda ratio, replay: ratio, "encoded once without gradient"),
        ("evenly", lambda context, count: list(range(count)), "return a tensor, not list"),
        ("nothing", lambda: 0, "no exercise"),
    ],
)
def test_a_checker_says_what_is_wrong(exercise, attempt, said, capsys):
    assert not check(exercise, attempt)
    assert said in capsys.readouterr().out


def test_a_sampler_that_leaves_gaps_or_repeats_is_told_so(capsys):
    import torch

    def first_ones(context, count):
        return torch.arange(count).expand(len(context.draws), count) * 0

    def clumped(context, count):
        last = context.snippets - 1
        picked = torch.arange(count)
        picked[-1] = last
        return picked.expand(len(context.draws), count)

    assert not check("evenly", first_ones)
    assert "no snippet twice" in capsys.readouterr().out
    assert not check("evenly", clumped)
    assert "no gap should exceed" in capsys.readouterr().out


@pytest.mark.parametrize("interactive", [True, False])
def test_a_dial_is_a_slider_in_a_browser_and_a_picture_elsewhere(
    tmp_path, interactive, monkeypatch
):
    run = start(
        [],
        profile="smoke",
        data_root=str(tmp_path),
        out_dir=str(tmp_path),
        seed=0,
        device="cpu",
        interactive=interactive,
    )
    sliders, drawn = [], []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda redraw, value: sliders.append((redraw, value))
    )

    def draw(value):
        drawn.append(value)
        return Figure(figsize=(4, 1))

    run.dial(draw, [0.1, 0.2, 0.3, 0.4, 0.5], "dial", title="at {}", alt="a picture")
    assert (tmp_path / "pictures" / "dial.png").stat().st_size > 1000
    assert drawn == [0.1, 0.2, 0.4, 0.5][: len(drawn)]
    assert len(sliders) == interactive
    if interactive:
        redraw, slider = sliders[0]
        assert slider.options[-1] == ("at 0.50", 0.5)
        redraw(0.3)
        assert drawn[-1] == 0.3


def test_recorded_runs_fill_the_card():
    run = {"profile": "laptop", "device": "cpu", "threads": 2, "memory_gib": 1.5, "kept": []}
    runs = [
        run | {"minutes": 7.5, "systems": {"all": {"average_mAP": 0.51}}},
        run | {"minutes": 8.25, "systems": {"all": {"average_mAP": 0.58}}},
    ]
    table = card_table({"laptop": recorded(runs)})
    assert "| `laptop` | 100 + 40 | 8.2 (cpu, 2 threads) | 1.5 GiB | all: 51 to 58 |" in table
    assert "| `full` | 1000 + 400 | not recorded yet |" in table
    with pytest.raises(InputError, match="kept all from an earlier one"):
        recorded([runs[0] | {"kept": ["all"]}])
    cells = [{"source": ["# title\n", "<!-- card -->\n", "old\n", "<!-- /card -->\n", "rest"]}]
    put_card(cells, table)
    text = "".join(cells[0]["source"])
    assert "old" not in text
    assert text.startswith("# title\n<!-- card -->")
    assert table in text


def test_every_checker_is_used_by_a_notebook():
    used = {name for p in NOTEBOOKS for name in re.findall(r'check\("(\w+)"', p.read_text())}
    used |= {n for p in NOTEBOOKS for n in re.findall(r'check\(\\"(\w+)\\"', p.read_text())}
    assert used == set(CHECKERS)
