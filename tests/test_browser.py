"""In a real browser: JupyterLab runs a notebook, and a moved slider changes the picture."""

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
from etadlite.course.source import build, read_source

FOLDER = notebooks_folder()
NAME = "00_quickstart"
SLIDER = """from matplotlib.figure import Figure

from etadlite.viz.widgets import slider


def draw(ratio):
    figure = Figure(figsize=(6, 2))
    figure.subplots().barh(["share"], [ratio])
    return figure


run.explore(slider(draw, [0.1, 0.3, 0.5], "ratio", "A bar as long as the ratio"), "bar")"""


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, or a skip that says what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "google-chrome", "chrome")
    with playwright.sync_playwright() as started:
        own = started.chromium.executable_path
        found = own if os.path.exists(own) else next(filter(None, map(shutil.which, names)), None)
        if found is None:
            pytest.skip(f"no browser: neither playwright's own nor any of {', '.join(names)}")
        chromium = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    """Address of a JupyterLab with its own settings in a folder with two notebooks."""
    root = tmp_path_factory.mktemp("lab")
    parameters, setup = (
        cell
        for cell in build(read_source(FOLDER / "source" / f"{NAME}.py")).cells
        if cell.id in ("parameters", "setup")
    )
    parameters.source = parameters.source.replace('"laptop"', '"smoke"')
    small = build([])
    small.cells = [parameters, setup, new_code_cell(SLIDER, id="slider")]
    (root / "notebooks").mkdir()
    nbformat.write(small, root / "notebooks" / "slider.ipynb")
    shutil.copy(FOLDER / f"{NAME}.ipynb", root / "notebooks")

    news = root / "settings" / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (news / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
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
    opened = browser.new_page(viewport={"width": 1280, "height": 2400})  # cells out of view wait
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


def test_a_slider_that_is_moved_changes_the_picture(lab, page):
    open_notebook(page, lab.format("slider.ipynb"))
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    picture = page.get_by_alt_text("A bar as long as the ratio")
    picture.wait_for()
    assert page.get_by_text("bars and sliders; seed 0").is_visible()
    before = picture.get_attribute("src")
    page.locator(".noUi-handle").press("ArrowRight")
    page.wait_for_function(
        "old => [...document.querySelectorAll('.jp-OutputArea img')].some(i => i.src != old)",
        arg=before,
    )
    assert page.locator(".widget-readout").inner_text() == "0.3"


def test_a_notebook_of_the_course_reads_well(lab, page):
    open_notebook(page, lab.format(f"{NAME}.ipynb"))
    page.get_by_role("heading", name="Quickstart").first.wait_for()
    page.locator("th", has_text="what to expect").wait_for()  # the card's table
