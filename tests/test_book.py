"""The book and the slides: every link leads somewhere, every page opens without a network."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from conftest import REPOSITORY
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from etadlite.base.errors import InputError
from etadlite.course import slides as course_slides
from etadlite.course.build import notebook_names, notebooks_folder
from etadlite.course.maths import mathml, with_mathml
from etadlite.course.slides import REVEAL, draws, fetch_reveal, main, prepared, write_slides

NAMES = notebook_names(notebooks_folder())


class Page(HTMLParser):
    """What a page refers to, what can be referred to in it, and its pictures' texts."""

    def __init__(self, path):
        super().__init__()
        self.links, self.sources, self.ids, self.alts, self.formulae = [], [], set(), [], 0
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        self.links += [given[name] for name in ("href", "src") if given.get(name)]
        if tag in ("script", "link", "img"):
            self.sources += [given.get("src") or given.get("href") or ""]
        self.formulae += tag == "math"
        if tag == "img":
            self.alts.append(given.get("alt") or "")

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of the book's pages."""
    pytest.importorskip("sphinx_book_theme", reason="the extra `book` is not installed")
    pytest.importorskip("myst_nb", reason="the extra `book` is not installed")
    target = tmp_path_factory.mktemp("book") / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "notebooks/book"]
    done = subprocess.run(
        [*command, ".", target], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def pages(book):
    """Path -> page, of all pages; the theme's own templates are none."""
    found = sorted(path for path in book.rglob("*.html") if "_static" not in path.parts)
    return {path: Page(path) for path in found}


@pytest.mark.slow
def test_the_book_holds_the_course_and_what_belongs_to_it(book, pages):
    held = {path.relative_to(book).with_suffix("").as_posix() for path in pages}
    assert {f"notebooks/{name}" for name in NAMES} <= held
    assert {"index", "notebooks/README", "notebooks/glossary", "README", "CONTRIBUTING"} <= held
    assert {f"notebooks/teachers/{name}" for name in NAMES} <= held
    start = book / "notebooks" / "README.html"
    links = {link.partition("#")[0] for link in pages[start].links}
    assert {f"{name}.html" for name in NAMES} <= links


@pytest.mark.slow
def test_every_link_within_the_book_leads_somewhere(book, pages):
    lost, followed = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            followed += 1
            if not target.is_file() or (
                parts.fragment and unquote(parts.fragment) not in pages[target].ids
            ):
                lost.append(f"{path.name}: {link}")
    assert not lost
    assert followed > 1000


@pytest.mark.slow
def test_pictures_keep_their_texts_and_formulae_are_mathml(book, pages):
    for name in NAMES:
        page = pages[book / "notebooks" / f"{name}.html"]
        assert all(len(alt) > 20 for alt in page.alts if alt != "Logo image")
        source = (notebooks_folder() / f"{name}.ipynb").read_text(encoding="utf-8")
        assert len(page.alts) >= 3 or '"image/png"' not in source  # no outputs yet
        assert bool(page.formulae) == ("$$" in source or "$S" in source)
        assert not re.search(r"\\(frac|sum|text|qquad)", page.text)


@pytest.mark.slow
def test_every_page_of_the_book_opens_without_a_network(book, pages, opened_offline):
    for path in pages:
        page = opened_offline(path)
        if path.name == "index.html":  # it leads on by itself
            page.wait_for_url("**/notebooks/README.html")
        page.get_by_role("heading", level=1).first.wait_for(state="attached")


# Slides


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """The folder of the slides of all notebooks, or a skip that says what is missing."""
    pytest.importorskip("latex2mathml", reason="the extra `book` is not installed")
    folder = tmp_path_factory.mktemp("slides")
    try:
        fetch_reveal(folder)
    except InputError as error:
        pytest.skip(str(error))
    main(["--to", str(folder)])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_slides_open_without_a_network_and_fit_the_page(name, slides, opened_offline):
    page = opened_offline(slides / f"{name}.slides.html")
    page.wait_for_function("Reveal.isReady()")
    count = page.evaluate("Reveal.getTotalSlides()")
    for number in range(count):
        zoom, below, beside = page.evaluate(FITTED)
        assert below <= 1, f"slide {number + 1} of {count} is cut at the bottom"
        assert beside <= 0, f"slide {number + 1} of {count} is cut at the right"
        assert zoom >= 0.5, f"slide {number + 1} of {count} is too full to be read"
        page.evaluate("Reveal.next()")
    assert count >= 10
    assert page.evaluate("[...document.images].every(i => i.alt.length > 20 && i.naturalWidth)")
    assert page.evaluate("getComputedStyle(document.querySelector('h2')).textTransform") == "none"


FITTED = """() => {
    const box = Reveal.getCurrentSlide().querySelector(":scope > .fit");
    const room = document.querySelector(".reveal .slides").getBoundingClientRect();
    const below = box.getBoundingClientRect().bottom - room.bottom;
    return [Number(box.style.zoom), below, box.scrollWidth - box.clientWidth];
}"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_slides_hold_every_text_and_picture_and_no_code_that_draws(name, slides):
    text = (slides / f"{name}.slides.html").read_text(encoding="utf-8")
    notebook = nbformat.read(notebooks_folder() / f"{name}.ipynb", as_version=4)
    if not any(map(draws, notebook.cells)):
        pytest.skip(f"it carries no outputs yet: make record NOTEBOOK={name}")
    shown = [c for c in notebook.cells if c.metadata.slideshow.slide_type in ("slide", "-")]
    alts = [
        values["alt"]
        for cell in shown
        for output in cell.get("outputs", ())
        for values in output.get("metadata", {}).values()
    ]
    assert text.count("<img") == len(alts) > 0
    assert "run.show" not in text
    assert "Figure(" not in text
    assert "http" not in "".join(Page(slides / f"{name}.slides.html").sources)


def picture(alt):
    return new_output("display_data", {"image/png": "aGk="}, metadata={"image/png": {"alt": alt}})


def test_a_slide_has_one_picture_and_the_text_above_it():
    pytest.importorskip("latex2mathml", reason="the extra `book` is not installed")

    def kind(name):
        return {"slideshow": {"slide_type": name}}

    cells = [
        new_markdown_cell("a $x$", metadata=kind("slide")),
        new_code_cell("one()", outputs=[picture("one")], metadata=kind("-")),
        new_code_cell("hidden()", outputs=[picture("no")], metadata=kind("skip")),
        new_markdown_cell("**What to see.** A [word](glossary.md#R(2+1)D).", metadata=kind("-")),
        new_markdown_cell("b", metadata=kind("-")),
        new_code_cell("print()", metadata=kind("-")),
        new_code_cell("two()", outputs=[picture("two")], metadata=kind("-")),
        new_code_cell("three()", outputs=[picture("three")], metadata=kind("-")),
    ]
    given = new_notebook(cells=cells)
    made = prepared(given)
    kinds = [cell.metadata.slideshow.slide_type for cell in made.cells]
    assert kinds == ["slide", "-", "skip", "-", "slide", "-", "slide", "slide"]
    hidden = [cell.source for cell in made.cells if cell.metadata.get("transient")]
    assert hidden == ["one()", "hidden()", "two()", "three()"]
    assert "<math" in made.cells[0].source
    assert made.cells[3].source == "**What to see.** A word."  # the glossary lies elsewhere
    assert given.cells[0].source == "a $x$"


def test_a_text_of_a_picture_can_not_break_the_page(tmp_path):
    nasty = 'a "quoted" <b>text</b> & more'
    cell = new_code_cell(
        "x", outputs=[picture(nasty)], metadata={"slideshow": {"slide_type": "slide"}}
    )
    write_slides(new_notebook(cells=[cell]), "t", tmp_path / "t.html")
    assert Page(tmp_path / "t.html").alts == [nasty]


def test_slides_without_npm_say_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(course_slides.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="slides need reveal.js, which npm fetches"):
        main(["00_quickstart", "--to", str(tmp_path)])
    (tmp_path / REVEAL / "dist").mkdir(parents=True)
    (tmp_path / REVEAL / "dist" / "reveal.js").touch()
    assert fetch_reveal(tmp_path) == tmp_path / REVEAL
    with pytest.raises(SystemExit, match='did you mean "00_quickstart"'):
        main(["00_quikstart", "--to", str(tmp_path)])


# Formulae


def test_formulae_become_mathml_and_code_stays():
    pytest.importorskip("latex2mathml", reason="the extra `book` is not installed")
    text = "a price of $5, a $x_i$, `$HOME` and\n\n$$\\frac{1}{2}$$\n\n```\n$a$\n```\n"
    made = with_mathml(text)
    assert made.count("<math") == 2
    assert "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>" in made
    assert "`$HOME`" in made
    assert "\n$a$\n" in made
    assert "a price of $5, a <math" in made
    assert 'display="block"' in mathml("x", block=True)
    assert 'display="inline"' in mathml("x")
