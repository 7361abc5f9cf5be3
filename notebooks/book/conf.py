"""Settings of the book: `make book` makes pages of the course, which need no network.

The sources stay where they are. Sphinx reads them from the repository's folder: the notebooks with
the outputs that they carry, and the Markdown files. Nothing is executed.
"""

import json
import subprocess
from pathlib import Path

from docutils.nodes import SkipNode
from myst_parser.mdit_to_docutils.base import default_slugify

from etadlite import __version__
from etadlite.course.build import put_card
from etadlite.course.maths import mathml
from etadlite.course.quiz import text
from etadlite.course.source import GLOSSARY

ROOT = Path(__file__).resolve().parents[2]
COURSE = "notebooks/README"

project, version, release = "etadlite", __version__, __version__
author = "the authors of etadlite"
html_title = "Temporal action detection, end to end, on a laptop"
language = "en"
root_doc = COURSE
include_patterns = [
    "notebooks/*.ipynb",
    "notebooks/*.md",
    "notebooks/teachers/*.md",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "data_scripts/README.md",
    "tests/benchmarks/README.md",
]
exclude_patterns = [".*", "build", "dist", "data", "runs", "etadlite", "**/.ipynb_checkpoints"]

extensions = ["myst_nb"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# A notebook's card goes from the title to "### Parameters": this is no mistake of the text.
suppress_warnings = ["myst.header"]

html_theme = "sphinx_book_theme"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["book.css"]
templates_path = ["templates"]
html_additional_pages = {"index": "redirect.html"}
html_context = {"default_mode": "auto"}

CONTENTS = {
    "The course": sorted(f"/notebooks/{path.stem}" for path in ROOT.glob("notebooks/*.ipynb")),
    "Look it up": ["/notebooks/glossary"],
    "For teachers": [
        "/notebooks/teachers",
        *sorted(
            f"/notebooks/teachers/{path.stem}" for path in ROOT.glob("notebooks/teachers/*.md")
        ),
    ],
    "The package": [
        "/README",
        "/data_scripts/README",
        "/tests/benchmarks/README",
        "/CONTRIBUTING",
        "/CHANGELOG",
    ],
}


def github_address():
    """Return "https://github.com/OWNER/NAME" if this is a clone from there, else None."""
    asked = ["git", "remote", "get-url", "origin"]
    found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    _, here, name = found.strip().removesuffix(".git").partition("github.com")
    return f"https://github.com/{name[1:]}" if here else None


html_theme_options = {
    "show_navbar_depth": 1,
    "use_download_button": False,
    "navigation_with_keys": True,
}
if address := github_address():  # only then do the buttons lead somewhere
    html_theme_options |= {
        "repository_url": address,
        "use_repository_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }


def with_alternative_texts(source):
    """Give each cell of a notebook the alternative text of its picture where MyST-NB looks."""
    notebook = json.loads(source)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            for kind, values in output.get("metadata", {}).items():
                if kind.startswith("image/") and "alt" in values:
                    cell["metadata"]["mystnb"] = {"image": {"alt": values["alt"]}}
    return json.dumps(notebook)


def with_own_anchor(link):
    """Return a link to the glossary with the book's anchor instead of JupyterLab's."""
    return f"[{link[1]}](glossary.md#{default_slugify(link[2].replace('-', ' '))})"


def complete(app, name, source):
    """Fill in what a page holds only in the book: its contents, questions, alternative texts."""
    if app.env.doc2path(name, base=False).suffix == ".ipynb":
        source[0] = GLOSSARY.sub(with_own_anchor, with_alternative_texts(source[0]))
    if name == COURSE:
        for caption, pages in CONTENTS.items():
            options = f":hidden:\n:caption: {caption}\n"
            source[0] += "\n".join(["\n```{toctree}", options, *pages, "```\n"])
    if Path(name).parent.name == "teachers":
        page, notebook = {"source": source[0]}, Path(name).name
        put_card([page], json.loads((ROOT / "notebooks" / "runtimes.json").read_text())[notebook])
        source[0] = page["source"].replace("<!-- questions -->", text(notebook))


def write_maths(translator, node):
    """Write a formula as MathML, which every browser shows without a script."""
    block = node.tagname == "math_block"
    translator.body.append(mathml(node.astext(), block=block))
    raise SkipNode  # its text is no text of the page


def setup(app):
    """Connect what is special about this book."""
    app.connect("source-read", complete)
    app.add_html_math_renderer("mathml", (write_maths, None), (write_maths, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
