"""The notebooks: each runs, says what it found, and keeps the rules of its form."""

import json
import os
import re
import shutil
from functools import cache
from html import unescape
from types import SimpleNamespace

import nbformat
import psutil
import pytest

from etadlite.base.errors import InputError
from etadlite.course import RealData
from etadlite.course import notebook as course_notebook
from etadlite.course.build import (
    LARGEST,
    MACHINE,
    build_notebook,
    card_table,
    code_hash,
    main,
    notebook_names,
    notebooks_folder,
    put_card,
    record_run,
    take_outputs,
    without_pictures,
)
from etadlite.course.execute import CELL_LIMITS, NotebookFailedError, run_notebook
from etadlite.course.notebook import PARAMETERS, PROFILES, start
from etadlite.course.source import (
    build,
    is_exercise,
    read_source,
    solution,
    stub,
    without_marks,
)
from etadlite.presets import ACTIVITYNET, placed, preset

FOLDER = notebooks_folder()
NAMES = notebook_names(FOLDER)
SYSTEMS = ("feature-based", "end to end, 30 % of the snippets", "end to end, all snippets")
SMOKE_MINUTES = 1.0
"""What a smoke run may take on two cores; twice as much fails."""


@cache
def cells_of(name):
    return read_source(FOLDER / "source" / f"{name}.py")


@cache
def committed(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def every_notebook(function):
    return pytest.mark.parametrize("name", NAMES)(function)


def pictures_of(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            for kind in output.get("data", {}):
                if kind.startswith("image/"):
                    yield cell.id, output.metadata.get(kind, {}).get("alt", "")


def printed(notebook):
    return "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", ()))


# The form


@every_notebook
def test_the_notebooks_are_those_of_the_source(name, tmp_path):
    main([name, "--solutions", str(tmp_path)])
    for solved, path in ((False, FOLDER), (True, tmp_path)):
        built = build(cells_of(name), solved=solved)
        put_card(built.cells, json.loads((FOLDER / "runtimes.json").read_text()).get(name, {}))
        found = nbformat.read(path / f"{name}.ipynb", as_version=4)
        nbformat.validate(found)
        assert [(c.id, c.source, c.metadata) for c in found.cells] == [
            (c.id, c.source, c.metadata) for c in built.cells
        ], f"python -m etadlite.course.build {name}"


@every_notebook
def test_a_solved_notebook_has_no_stub_left(name):
    cells = cells_of(name)
    codes = {c.id: c.source for c in build(cells, solved=True).cells if c.cell_type == "code"}
    assert "return ..." not in "".join(codes.values())
    assert "SOLUTION" not in "".join(codes.values())
    for cell in cells:
        if is_exercise(cell):
            assert "return ..." in stub(cell)
            assert solution(cell) in codes[cell.id]


@every_notebook
def test_the_form_is_kept(name):
    cells = committed(name).cells
    codes = [cell.source for cell in cells if cell.cell_type == "code"]
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert len(cells) >= 45
    exercises = [cell for cell in cells_of(name) if is_exercise(cell)]
    for code in codes + [without_marks(cell.source) for cell in exercises]:
        lines = code.splitlines()
        assert len(lines) <= 25, lines[0]
        assert max(map(len, lines), default=0) <= 100
        compile(code, name, "exec")
    assert 2 <= len(exercises) <= 4
    assert len([text for text in texts if "<summary>Hint" in text]) >= 2
    slides = [c for c in cells if c.metadata.slideshow.slide_type == "slide"]
    assert len(slides) >= 5


@every_notebook
def test_the_parameters_are_those_of_every_notebook(name):
    (tagged,) = [c for c in cells_of(name) if "parameters" in c.metadata.tags]
    values: dict[str, object] = {}
    exec(tagged.source, values)
    own = ["train"] if "end_to_end" in name else []  # those with a published data set
    assert [key for key in values if key != "__builtins__"] == [*PARAMETERS, *own]
    assert values["profile"] == "laptop"
    assert values["out_dir"] == f"../runs/{name}"


# What is recorded: satisfied by `make record`, at the very end of a change


@every_notebook
def test_the_recorded_outputs_are_of_this_code(name):
    notebook = committed(name)
    if not any(cell.get("outputs") for cell in notebook.cells):
        pytest.skip(f"it carries no outputs yet: make record NOTEBOOK={name}")
    remedy = f"its code changed since its outputs were recorded: make record NOTEBOOK={name}"
    assert notebook.metadata.get("etadlite", {}).get("code") == code_hash(notebook), remedy
    runtimes = json.loads((FOLDER / "runtimes.json").read_text(encoding="utf-8"))
    assert runtimes[name]["laptop"]["minutes"] <= 15  # 10 on idle cores; some ran beside other work
    assert {"smoke", "laptop"} <= set(runtimes[name])
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert len(list(pictures_of(notebook))) >= 3


@every_notebook
def test_what_is_committed_is_small_and_names_no_machine(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= LARGEST
    for cell in committed(name).cells:
        text = json.dumps([without_pictures(output) for output in cell.get("outputs", ())])
        assert not MACHINE.search(text), cell.id


# A run


def with_stubs(name):
    """A solved notebook in which each exercise first stands as a stub."""
    stubs = {c.id: c for c in build(cells_of(name)).cells}
    notebook = build(cells_of(name), solved=True)
    made = []
    for cell in notebook.cells:
        if f"{cell.id}-solution" in stubs:
            made.append(stubs[cell.id] | {"id": f"{cell.id}-stub"})
        made.append(cell)
    notebook.cells = [nbformat.from_dict(cell) for cell in made]
    return notebook


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """Name -> (executed notebook, metrics) of a smoke run, made once.

    Each exercise stands there twice: as a stub and solved.
    """
    root = tmp_path_factory.mktemp("course")
    folder = root / "notebooks"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.ipynb"))
    done = {}

    def run(name):
        if name not in done:
            nbformat.write(with_stubs(name), folder / f"{name}.ipynb")
            parameters = {"profile": "smoke", "device": "cpu"}
            files = run_notebook(name, parameters, out=root / name, folder=folder)
            executed = nbformat.read(files.notebook, as_version=4)
            page = unescape(files.page.read_text())
            assert all(f'alt="{alt}"' in page for _, alt in pictures_of(executed))
            done[name] = executed, json.loads(files.metrics.read_text()), root
        return done[name]

    return run


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs(name, smoke, capsys):
    executed, metrics, root = smoke(name)
    with capsys.disabled():
        print(f"\n{name}: {60 * metrics['minutes']:.0f} s, {metrics['memory_gib']} GiB")
    # On a busy machine it takes longer, but not more of the processor.
    taken = min(metrics["minutes"], metrics["processor_minutes"] / metrics["threads"])
    assert taken <= 2 * SMOKE_MINUTES
    assert (metrics["profile"], metrics["device"]) == ("smoke", "cpu")
    assert metrics["results"]
    said = printed(executed)
    assert str(root) not in said
    assert "\r" not in said, "a bar where lines are wanted"
    for cell in filter(is_exercise, cells_of(name)):
        for exercise in re.findall(r'check\("(\w+)"', cell.source):
            assert f"{exercise}: not attempted yet." in said
            assert f"{exercise}: correct!" in said
    shown = list(pictures_of(executed))
    assert len(shown) >= 3
    assert all(len(alt) > 20 for _, alt in shown)
    assert len(nbformat.writes(executed)) < LARGEST


@pytest.mark.slow
def test_the_quickstart_measures_what_it_claims(smoke):
    executed, metrics, root = smoke("00_quickstart")
    out = root / "00_quickstart"
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
    assert "epoch  1 of 1" in printed(executed)


MINIMAL = """# %% text [markdown]
# <!-- card -->

# %% parameters tags=["parameters"]
profile = "laptop"
data_root = "../data"
out_dir = "../runs/minimal"
how = "well"

# %% work
from pathlib import Path

from etadlite.base.errors import InputError
from etadlite.base.files import write_json

print(f"it goes {how} in {Path.cwd().name}")
if how == "wrong":
    raise InputError("how is wrong; say well")
if how == "badly":
    1 / 0
while how == "for ever":
    pass
facts = {"profile": profile, "data": "none", "device": "cpu", "threads": 1, "minutes": 0.5}
write_json(Path(out_dir) / "metrics.json", facts | {"memory_gib": 0.2, "results": {"points": 3}})
"""


@pytest.fixture
def minimal(tmp_path):
    """A folder of notebooks with one that does next to nothing, 00_minimal."""
    folder = tmp_path / "notebooks"
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "00_minimal.py").write_text(MINIMAL)
    (folder / "runtimes.json").write_text("{}")
    build_notebook("00_minimal", folder)
    return folder


@pytest.mark.slow
def test_a_run_leaves_notebook_page_and_metrics_and_is_recorded(minimal, tmp_path, capfd):
    done = run_notebook("00_minimal", {}, folder=minimal, record=True)
    assert done.notebook.parent == tmp_path / "runs" / "minimal"
    assert "it goes well in notebooks" in done.page.read_text()
    assert "it goes well in notebooks" in capfd.readouterr().out.splitlines()
    assert json.loads(done.metrics.read_text())["results"] == {"points": 3}

    built = nbformat.read(minimal / "00_minimal.ipynb", as_version=4)
    assert built.cells[2].outputs[0].text == "it goes well in notebooks\n"
    assert [c.get("execution_count") for c in built.cells] == [None, 1, 2]
    assert built.metadata.etadlite.code == code_hash(built)
    assert (
        "| `laptop` | none | 0.5 (cpu, 1 thread) | 0.2 GiB | points: 3 |" in built.cells[0].source
    )

    source = minimal / "source" / "00_minimal.py"
    source.write_text(MINIMAL.replace("# <!--", "# Text changes.\n#\n# <!--"))
    build_notebook("00_minimal", minimal)  # a text changes no output
    kept = nbformat.read(minimal / "00_minimal.ipynb", as_version=4)
    assert kept.cells[2].outputs == built.cells[2].outputs
    source.write_text(MINIMAL.replace('"well"', '"on"'))
    build_notebook("00_minimal", minimal)
    changed = nbformat.read(minimal / "00_minimal.ipynb", as_version=4)
    assert changed.cells[2].outputs == []
    assert "etadlite" not in changed.metadata


@pytest.mark.slow
def test_a_failing_cell_is_named(minimal):
    for how, complaint in (
        ("badly", "00_minimal, cell work: ZeroDivisionError: division by zero"),
        ("for ever", "00_minimal, cell work: it took too long"),
    ):
        with pytest.raises(NotebookFailedError, match=complaint):
            run_notebook("00_minimal", {"how": how}, folder=minimal, cell_limit=2)


def test_a_parameter_of_a_notebook_must_be_a_text_where_it_is_one():
    with pytest.raises(InputError, match="out_dir is 5, but it must be a text: write it in quotes"):
        run_notebook("00_quickstart", {"out_dir": 5})


def test_no_time_limit_ends_a_laptop_notebook():
    assert "laptop" not in CELL_LIMITS


@pytest.mark.slow
def test_what_a_notebook_refuses_is_one_sentence(minimal):
    with pytest.raises(InputError, match="^how is wrong; say well$"):
        run_notebook("00_minimal", {"how": "wrong"}, folder=minimal)


@pytest.mark.parametrize(
    ("name", "parameters", "complaint"),
    [
        ("00_minimal", {"profil": "smoke"}, 'no parameter "profil"; did you mean "profile"'),
        ("00_maximal", {}, 'no notebook "00_maximal"; did you mean "00_minimal"'),
        ("00_minimal", {"out_dir": "a"}, "not both"),
    ],
)
def test_senseless_calls_do_no_work(minimal, tmp_path, name, parameters, complaint):
    with pytest.raises(InputError, match=complaint):
        run_notebook(name, parameters, folder=minimal, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The source


SOURCE = """# %% title [markdown] tags=["slide"]
# # Title

# %% exercise
@staticmethod
def double(x):
    # BEGIN SOLUTION
    y = 2 * x
    return y
    # END SOLUTION


check("double", double)

# %% note [markdown] tags=["solution"]
# Addition would do, too.

# %% setup-of-the-assignment tags=["assignment"]
import math

# %% area
def area(r):
    # BEGIN SOLUTION
    return math.pi * r**2
    # END SOLUTION


if check("area", area):
    print(before)
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    return path


def test_a_source_makes_stubs_and_folded_solutions(source):
    cells = read_source(source)
    student = build(cells)
    assert [cell.id for cell in student.cells] == [
        "title",
        "exercise",
        "exercise-solution",
        "area",
        "area-solution",
    ]
    assert student.cells[1].source == (
        '@staticmethod\ndef double(x):\n    return ...\n\n\ncheck("double", double);'
    )
    assert student.cells[3].source.startswith("def area(r):\n    return ...\n\n\nif check(")
    assert student.cells[2].source == (
        "<details><summary>Solution</summary>\n\n```python\n@staticmethod\ndef double(x):\n"
        "    y = 2 * x\n    return y\n```\n\nAddition would do, too.\n\n</details>"
    )
    assert solution(cells[4]) == "def area(r):\n    return math.pi * r**2"
    assert student.cells[0].metadata.slideshow.slide_type == "slide"
    assert student.cells[1].metadata.slideshow.slide_type == "skip"


def test_a_source_makes_solutions(source):
    cells = read_source(source)
    solutions = build(cells, solved=True)
    assert [cell.id for cell in solutions.cells] == ["title", "exercise", "note", "area"]
    assert "SOLUTION" not in "".join(cell.source for cell in solutions.cells)
    assert "return y" in solutions.cells[1].source
    assert "return ..." in stub(cells[1])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("# %% title", "# %%", "cell 0 is named"),
        ("# %% note", "# %% exercise", "two cells are named exercise"),
        ('["slide"]', '["slid"]', "unknown tag slid"),
        ("    # END SOLUTION", "", "exercise: BEGIN SOLUTION and END SOLUTION do not"),
        ("    # BEGIN SOLUTION", "", "exercise: BEGIN SOLUTION and END SOLUTION do not"),
    ],
)
def test_a_faulty_source_is_refused(source, old, new, complaint):
    source.write_text(SOURCE.replace(old, new, 1))
    with pytest.raises(InputError, match=complaint):
        read_source(source)


def executed_copy(cells, text="fine"):
    notebook = build(cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = 7
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    return notebook


def test_outputs_that_do_not_belong_are_refused(source):
    cells = read_source(source)
    for text in ("/home/me/x", "/tmp/y.py:3", "lib/site-packages/z"):
        with pytest.raises(InputError, match="cell exercise names this machine"):
            take_outputs(build(cells), executed_copy(cells, text))
    other = executed_copy(cells)
    other.cells[1].source += "\n1"
    with pytest.raises(InputError, match="cell exercise was executed with other code"):
        take_outputs(build(cells), other)
    part = executed_copy(cells)
    part.cells[3].execution_count = None
    with pytest.raises(InputError, match="cell area was not executed"):
        take_outputs(build(cells), part)
    failed = executed_copy(cells)
    failed.cells[3].outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]
    with pytest.raises(InputError, match="cell area was not executed to its end"):
        take_outputs(build(cells), failed)


@pytest.mark.slow
def test_a_cell_that_runs_alone_is_executed_anew_and_all_others_keep_their_outputs(minimal):
    source, alone = minimal / "source" / "00_minimal.py", '\n# %% last tags=["alone"]\n'
    source.write_text(f"{MINIMAL}{alone}print(6 * 7)\n")
    executed = executed_copy(read_source(source))
    for code, said in (("print(6 * 7)", "42\n"), ("print(6 * 8)", "48\n")):
        source.write_text(f"{MINIMAL}{alone}{code}\n")
        build_notebook("00_minimal", minimal, executed)
        executed = None  # it has its own outputs from now on
        built = nbformat.read(minimal / "00_minimal.ipynb", as_version=4)
        printed_by = [cell.outputs[0].text for cell in built.cells if cell.cell_type == "code"]
        assert printed_by == ["fine", "fine", said]
        assert [c.get("execution_count") for c in built.cells] == [None, 1, 2, 3]


def test_a_notebook_that_is_too_large_is_refused(minimal):
    executed = executed_copy(read_source(minimal / "source" / "00_minimal.py"), "x" * LARGEST)
    with pytest.raises(InputError, match="at most 650,000"):
        build_notebook("00_minimal", minimal, executed)


def test_the_builder_names_what_it_can_not_build(capsys):
    with pytest.raises(SystemExit, match='did you mean "00_quickstart"'):
        main(["00_quikstart"])
    with pytest.raises(SystemExit, match="--outputs belongs to one notebook"):
        main(["--outputs", "x.ipynb"])


# Parameters


@pytest.fixture
def given(tmp_path):
    return {
        "profile": "smoke",
        "data_root": str(tmp_path),
        "out_dir": str(tmp_path / "out"),
        "seed": 0,
        "device": "cpu",
        "interactive": "auto",
    }


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
def test_a_parameter_of_a_wrong_value_is_refused(given, parameter, value, complaint):
    with pytest.raises(InputError, match=complaint):
        start([], **given | {parameter: value})
    assert not os.path.exists(given["out_dir"])


def test_an_unknown_parameter_is_refused(given):
    cell = "# Parameters\nprofil = 'smoke'"
    with pytest.raises(InputError, match='no parameter "profil"; did you mean "profile"'):
        start([cell], **given)


def test_too_little_memory_is_said_before_any_work(given, monkeypatch):
    free = psutil.virtual_memory()._replace(available=int(0.7 * 2**30))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(InputError, match="laptop needs 2 GiB of free memory and 0.7 GiB are free"):
        start([], **given | {"profile": "laptop"})
    assert not os.path.exists(given["out_dir"])


def real_data(train="e2e_anet_tsp"):
    return RealData("ActivityNet-1.3", ("e2e_anet_tsp", "anet_tsp"), train)


def test_the_full_profile_needs_its_data_and_a_gpu(given, tmp_path):
    full = given | {"profile": "full", "full": real_data()}
    with pytest.raises(InputError, match=r"min.json \(data.annotations\) is not there"):
        start([], **full)
    for setting in ("data.annotations", "data.blocked", "data.videos", "inference.classifier"):
        section, key = setting.split(".")
        path = getattr(getattr(preset("e2e_anet_tsp"), section), key)
        (tmp_path / path.relative_to(ACTIVITYNET)).mkdir(parents=True)
    with pytest.raises(InputError, match=r"tsp_anet.safetensors \(encoder.weights\) is not there"):
        start([], **full)
    bare = real_data("e2e_anet_tsp encoder.weights=null")
    with pytest.raises(InputError, match="NVIDIA GPU, and the device is cpu; choose"):
        start([], **full | {"full": bare})
    assert not os.path.exists(given["out_dir"])
    assert start([], **full | {"profile": "smoke"}).contents == "6 + 4 videos"


def test_the_full_profile_trains_what_it_is_told(given, tmp_path):
    def asked(train, **changed):
        return start([], **given | {"profile": "full", "full": real_data(train)} | changed)

    for train in ("", "thumos_i3d", "training.epochs=3"):
        with pytest.raises(
            InputError, match="not begin with a preset .*: e2e_anet_tsp or anet_tsp"
        ):
            asked(train)
    with pytest.raises(InputError, match="is not understood: No closing quotation"):
        asked("anet_tsp 'data.features=x")
    with pytest.raises(InputError, match="give seed as a parameter of the notebook"):
        asked("anet_tsp seed=3")
    with pytest.raises(InputError, match='did you mean "training.epochs"'):
        asked("anet_tsp training.epoch=3")
    with pytest.raises(InputError, match="belongs to the profile full, and the profile is smoke"):
        asked("anet_tsp", profile="smoke")

    settings = placed(preset("anet_tsp"), tmp_path)
    for path in (settings.data.annotations, settings.data.features, settings.data.blocked):
        path.mkdir(parents=True)
    scores = tmp_path / "my scores.json"
    scores.touch()
    run = asked(f"anet_tsp training.epochs=3 'inference.classifier={scores}'", seed=5)
    assert run.settings == settings.changed(
        ["training.epochs=3", f"inference.classifier={scores}", "seed=5", "device=cpu"]
    )
    assert run.contents.startswith("ActivityNet-1.3: anet_tsp training.epochs=3")


@pytest.mark.parametrize("interactive", [False, True])
def test_a_training_is_watched_line_by_line_or_in_a_picture(
    given, interactive, monkeypatch, capsys
):
    shown = []
    place = SimpleNamespace(update=lambda picture: shown.append(picture.data))
    monkeypatch.setattr(course_notebook, "display", lambda picture, display_id: place)
    run = start([], **given | {"interactive": interactive})
    capsys.readouterr()
    with run.watching("mine", run.out, 2), (run.out / "metrics.jsonl").open("w") as file:
        for step, loss in enumerate((4.0, 2.0, 1.0, 1.0), 1):
            print(json.dumps({"step": step, "epoch": step / 2, "loss": loss}), file=file)
    lines = ["mine: epoch  1 of 2, loss 3.00", "mine: epoch  2 of 2, loss 1.00"]
    assert capsys.readouterr().out.splitlines() == ([] if interactive else lines)
    assert len(shown) == interactive


# The card


METRICS = {
    "profile": "laptop",
    "data": "100 + 40 videos",
    "device": "cpu",
    "threads": 2,
    "memory_gib": 1.5,
    "minutes": 7.5,
    "results": {"all, mAP (%)": 51},
}


def test_recorded_runs_fill_the_card(tmp_path):
    (tmp_path / "runtimes.json").write_text("{}")
    later = METRICS | {"minutes": 8.25, "memory_gib": 1.25, "results": {"all, mAP (%)": 58}}
    for metrics in (METRICS, later):
        record_run("some", tmp_path, metrics, "code")
    runtimes = json.loads((tmp_path / "runtimes.json").read_text())["some"]
    assert runtimes["laptop"]["runs"] == 2
    row = "100 + 40 videos | 8.2 (cpu, 2 threads) | 1.5 GiB | all, mAP (%): 51 to 58 |"
    table = card_table(runtimes)
    assert f"| `laptop` | {row}" in table
    assert "| `full` | 1000 + 400 videos | not recorded yet |" in table
    cells = [{"source": "# title\n<!-- card, full: THUMOS-14 -->\nrest"}]
    put_card(cells, runtimes)
    assert cells[0]["source"].startswith("# title\n| profile |")
    assert "| `full` | THUMOS-14 | not recorded yet |" in cells[0]["source"]

    record_run("some", tmp_path, later, "other code")
    runtimes = json.loads((tmp_path / "runtimes.json").read_text())["some"]
    assert (runtimes["laptop"]["runs"], runtimes["laptop"]["memory_gib"]) == (1, 1.25)
    with pytest.raises(InputError, match="kept all from an earlier one"):
        record_run("some", tmp_path, METRICS | {"kept": ["all"]}, "code")


def test_every_profile_says_what_memory_it_needs():
    needs = [profile.memory_gib for profile in PROFILES.values()]
    assert needs == sorted(needs)


# A terminal


def test_the_command_takes_pairs(monkeypatch, capsys):
    from etadlite import cli
    from etadlite.course import execute

    asked = {}

    def run(name, parameters, **options):
        asked.update(name=name, parameters=parameters, **options)
        raise NotebookFailedError("it, cell x: what")

    monkeypatch.setattr(execute, "run_notebook", run)
    words = ["notebook", "00_quickstart", "-p", "seed", "3", "--cell-limit", "9"]
    monkeypatch.setattr("sys.argv", ["etadlite", *words, "-p", "profile", "smoke"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert capsys.readouterr().err == "failed: it, cell x: what\n"
    assert asked["parameters"] == {"seed": 3, "profile": "smoke"}
    assert (asked["cell_limit"], asked["record"], asked["out"]) == (9, False, None)

    monkeypatch.setattr("sys.argv", ["etadlite", "notebook", "x", "-p", "seed"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert re.search(r'"-p seed" is not understood; write -p KEY VALUE', capsys.readouterr().err)
