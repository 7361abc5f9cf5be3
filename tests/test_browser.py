"""In a real browser: JupyterLab runs notebooks, sliders and trainings change their pictures."""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from etadlite.course.build import notebooks_folder
from etadlite.course.quiz import read_quiz
from etadlite.course.source import build, read_source

pytestmark = pytest.mark.slow

FOLDER = notebooks_folder()
NAME = "00_quickstart"
SLIDER = """from matplotlib.figure import Figure

from etadlite.viz.widgets import slider


def draw(ratio):
    figure = Figure(figsize=(6, 2))
    figure.subplots().barh(["share"], [ratio])
    return figure


run.explore(slider(draw, [0.1, 0.3, 0.5], "ratio", "A bar as long as the ratio"), "bar")"""


QUIZ = f"""from etadlite.course.quiz import show_quiz

show_quiz("{NAME}", live=run.interactive)"""

TRAINING = """import json
import time

folder = run.out / "training"
folder.mkdir()
with run.watching("a training", folder, 2), (folder / "metrics.jsonl").open("w") as file:
    for step in range(1, 11):
        record = {"step": step, "epoch": step / 5, "loss": 1 / step}
        print(json.dumps(record), file=file, flush=True)
        time.sleep(1)"""
WHOLE = "06_end_to_end_thumos"
"""Runs in seconds at smoke."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    """Address of a JupyterLab with its own settings in a folder with five notebooks."""
    root = tmp_path_factory.mktemp("lab")
    (root / "notebooks").mkdir()
    for file in (f"{NAME}.ipynb", "glossary.md"):
        shutil.copy(FOLDER / file, root / "notebooks")
    whole = build(read_source(FOLDER / "source" / f"{WHOLE}.py"))
    start = [cell for cell in whole.cells if cell.id in ("parameters", "setup")]
    start[0].source = start[0].source.replace('"laptop"', '"smoke"')
    nbformat.write(whole, root / "notebooks" / f"{WHOLE}.ipynb")
    for name, code in (("slider", SLIDER), ("training", TRAINING), ("quiz", QUIZ)):
        small = build([])
        small.cells = [*start, new_code_cell(code, id=name)]
        nbformat.write(small, root / "notebooks" / f"{name}.ipynb")

    for name, values in {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of view are there, too
    }.items():
        file = root / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
    }
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--port=0"),
            "--IdentityProvider.token=course",
            f"--ServerApp.root_dir={root}",
        ],
        env=os.environ | {name: str(root / folder) for name, folder in folders.items()},
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    for line in server.stderr:
        said.append(line)
        if address := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/", line):
            break
    else:
        pytest.fail("JupyterLab did not start:\n" + "".join(said))
    log = (root / "lab.log").open("w")  # whoever fills a pipe that nobody reads waits for ever
    drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=log)
    yield f"{address[0]}lab/tree/notebooks/{{}}?token=course&reset"
    server.terminate()
    server.wait()
    drain.wait()
    log.close()


@pytest.fixture
def page(browser):
    """A page that fails the test on an error in its console."""
    errors = []
    opened = browser.new_page(viewport={"width": 1280, "height": 1024})
    opened.set_default_timeout(120_000)
    opened.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert errors == []


def open_notebook(page, address):
    """Open it and wait until its kernel is connected; what runs before that is lost."""
    page.goto(address)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()


def run_all(page, address):
    """Open a notebook and run all of its cells."""
    open_notebook(page, address)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def wait_for_another(page, source):
    """Wait until a cell shows a picture that is another one than before."""
    page.wait_for_function(
        "old => [...document.querySelectorAll('.jp-OutputArea img')].some(i => i.src != old)",
        arg=source,
    )


def test_a_slider_that_is_moved_changes_the_picture(lab, page):
    run_all(page, lab.format("slider.ipynb"))
    before = page.get_by_alt_text("A bar as long as the ratio").get_attribute("src")
    assert page.get_by_text("bars and sliders; seed 0").is_visible()
    page.locator(".noUi-handle").press("ArrowRight")
    wait_for_another(page, before)
    assert page.locator(".widget-readout").inner_text() == "0.3"


def test_a_question_that_is_answered_is_explained(lab, page):
    run_all(page, lab.format("quiz.ipynb"))
    choice = read_quiz(NAME).choices[0]
    for position, verdict in ((choice.right, "Right."), (choice.right - 1, "No.")):
        text, because = choice.options[position]
        page.get_by_text(text, exact=True).click()
        page.get_by_text(because).wait_for()
        assert page.get_by_text(verdict, exact=True).is_visible()
    assert page.locator("textarea[placeholder='Your answer']").count() == 3


def test_the_curves_of_a_training_grow_while_it_trains(lab, page):
    run_all(page, lab.format("training.ipynb"))
    picture = page.locator(".jp-OutputArea img")
    for _ in range(3):  # nothing yet, some steps, more of them
        wait_for_another(page, picture.get_attribute("src"))
    assert picture.count() == 1  # in one place


def test_a_whole_notebook_runs(lab, page):
    run_all(page, lab.format(f"{WHOLE}.ipynb"))
    page.get_by_text("GiB at most").wait_for(timeout=600_000)  # the last that it prints
    assert page.get_by_text("Traceback").count() == 0


def test_a_notebook_of_the_course_reads_well(lab, page):
    open_notebook(page, lab.format(f"{NAME}.ipynb"))
    page.get_by_role("heading", name="Quickstart").first.wait_for()
    page.locator("th", has_text="what to expect").wait_for()  # the card's table


def test_a_term_leads_to_its_place_in_the_glossary(lab, page):
    open_notebook(page, lab.format(f"{NAME}.ipynb"))
    page.get_by_role("link", name="mAP", exact=True).first.click()
    page.locator(".jp-MarkdownViewer h3", has_text="mAP").wait_for()
    page.wait_for_function(
        """() => [...document.querySelectorAll(".jp-MarkdownViewer h3")].some(heading => {
            const place = heading.getBoundingClientRect();
            return heading.textContent.startsWith("mAP") && place.top > 0 && place.top < 900;
        })"""
    )
