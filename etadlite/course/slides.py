"""Write a notebook's slides: pages that need no network.

    python -m etadlite.course.slides [NAME ...] [--to runs/slides]

A slide shows texts, code and results; where a cell draws a picture, only the picture is shown. The
formulae are MathML, and reveal.js is fetched with npm once and lies beside the slides.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from etadlite.base.errors import InputError
from etadlite.base.files import written_whole
from etadlite.course.build import notebook_names, notebooks_folder
from etadlite.course.maths import with_mathml
from etadlite.course.notebook import known
from etadlite.course.source import without_glossary

REVEAL = "reveal.js-5.2.1"
PAGE = 1280, 720  # CSS pixels of a slide
# What differs from nbconvert's page: nothing from a network, the pictures' texts, slides that fit.
TEMPLATE = (
    """{%- extends 'index.html.j2' -%}
{% macro picture(output, kind) %}
<img src="data:{{ kind }};base64,{{ output.data[kind] | escape_html }}"
 alt="{{ output | get_metadata('alt', kind) | escape_html_keep_quotes | replace('"', "&quot;") }}">
{% endmacro %}
{% block html_head_js %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block data_png %}{{ picture(output, 'image/png') }}{% endblock %}
{% block data_jpg %}{{ picture(output, 'image/jpeg') }}{% endblock %}
{% block html_head_css %}
<style>
.reveal { font-size: 28px; --r-heading-text-transform: none; --r-heading-letter-spacing: normal; }
.reveal h1 { font-size: 1.8em; }
.reveal h2 { font-size: 1.4em; }
.reveal img { max-width: 100%; margin: 0; }
.reveal pre { box-shadow: none; }
.fit { overflow: hidden; }
</style>
{% endblock %}
{% block footer_js %}
<script src="REVEAL/dist/reveal.js"></script>
<script src="REVEAL/plugin/notes/notes.js"></script>
<script>
const fit = (slide) => {  // make everything smaller until it is on the page
  let box = slide.querySelector(":scope > .fit");
  if (!box) {
    box = document.createElement("div");
    box.className = "fit";
    box.append(...slide.childNodes);
    slide.append(box);
  }
  const page = document.querySelector(".reveal .slides").getBoundingClientRect();
  let zoom = 1;
  box.style.zoom = zoom;
  for (let tries = 0; tries < 20; tries++) {
    const room = page.bottom - box.getBoundingClientRect().top;
    if (box.getBoundingClientRect().height <= room && box.scrollWidth <= box.clientWidth) break;
    zoom *= 0.93;
    box.style.zoom = zoom;
  }
};
Reveal.initialize({
  width: WIDTH, height: HEIGHT, margin: 0.04, center: false,
  hash: true, slideNumber: "c/t", transition: "none", plugins: [RevealNotes],
});
const shown = () => fit(Reveal.getCurrentSlide());
Reveal.on("ready", shown);
Reveal.on("slidechanged", shown);
window.addEventListener("load", shown);
</script>
{% endblock %}
""".replace("REVEAL", REVEAL)
    .replace("WIDTH", str(PAGE[0]))
    .replace("HEIGHT", str(PAGE[1]))
)


def write_slides(notebook: NotebookNode, title: str, target: Path) -> None:
    """Write a notebook's slides as a page; reveal.js has to lie beside it."""
    from nbconvert import SlidesExporter

    shown = prepared(notebook)
    shown.metadata.title = title
    exporter = SlidesExporter(
        raw_template=TEMPLATE,
        reveal_url_prefix=REVEAL,
        reveal_theme="white",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    text, _ = exporter.from_notebook_node(shown)
    with written_whole(target) as draft:
        draft.write_text(text, encoding="utf-8")


def prepared(notebook: NotebookNode) -> NotebookNode:
    """Return a copy with MathML for its formulae, and without the code that draws pictures.

    Links to the glossary become plain words.

    A picture has a slide of its own, with the text above it and with "What to see" below it.
    """
    copy = deepcopy(notebook)
    shown, text = "", None  # the last code or picture of the slide; the text below it
    for cell in copy.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        if kind == "slide":
            shown, text = "", None
        if kind in ("slide", "-") and cell.cell_type == "markdown":
            text = text if cell.source.startswith("**What to see") else cell
        elif kind in ("slide", "-"):
            this = "picture" if draws(cell) else "code"
            if shown and "picture" in (shown, this):
                (text or cell).metadata.slideshow.slide_type = "slide"
            shown, text = this, None
        if cell.cell_type == "markdown":
            cell.source = with_mathml(without_glossary(cell.source))
        elif draws(cell):
            cell.metadata.transient = NotebookNode(remove_source=True)  # nbconvert's own mark
    return copy


def draws(cell: NotebookNode) -> bool:
    """Return True if a code cell shows a picture."""
    kinds = {kind for output in cell.get("outputs", ()) for kind in output.get("data", {})}
    return any(kind.startswith("image/") for kind in kinds)


def fetch_reveal(folder: Path) -> Path:
    """Put reveal.js into a folder with npm, unless it is there; return where it lies.

    Raises:
        InputError: npm is missing or has failed.
    """
    place = folder / REVEAL
    if (place / "dist" / "reveal.js").is_file():
        return place
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"slides need reveal.js, which npm fetches, and there is no npm; install Node.js, or "
            f"unpack reveal.js into {place}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        wanted = REVEAL.replace("-", "@")
        command = [npm, "pack", "--silent", "--pack-destination", draft, wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"npm could not fetch {wanted}: {done.stderr.strip()}")
        (archive,) = Path(draft).glob("*.tgz")
        with tarfile.open(archive) as packed:
            needed = ("package/dist/", "package/plugin/notes/", "package/LICENSE")
            files = [file for file in packed.getmembers() if file.name.startswith(needed)]
            packed.extractall(draft, files, filter="data")
        shutil.rmtree(place, ignore_errors=True)
        (Path(draft) / "package").rename(place)
    return place


def main(arguments: Sequence[str] | None = None) -> None:
    """Write slides from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: every notebook")
    parser.add_argument("--to", type=Path, default=Path("runs/slides"), metavar="FOLDER")
    given = parser.parse_args(arguments)
    try:
        folder = notebooks_folder()
        every = notebook_names(folder)
        names = [known("notebook", Path(name).stem, every, 0.4) for name in given.names] or every
        fetch_reveal(given.to)
        for name in names:
            notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
            title = notebook.cells[0].source.partition("\n")[0].strip("# ")
            target = given.to / f"{name}.slides.html"
            write_slides(notebook, title, target)
            print(target)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
