"""What teachers and readers get beside the notebooks: questions, notes, the glossary."""

import io
import json
import re
from collections import Counter
from contextlib import redirect_stdout
from functools import cache

import ipywidgets
import nbformat
import pytest
from test_course import WRONG

from etadlite.base.errors import InputError
from etadlite.course import check
from etadlite.course.build import notebook_names, notebooks_folder
from etadlite.course.quiz import main, quiz_names, read_quiz, show_quiz, text, widget
from etadlite.course.source import GLOSSARY, without_glossary

FOLDER = notebooks_folder()
NAMES = notebook_names(FOLDER)
every_notebook = pytest.mark.parametrize("name", NAMES)


def test_every_notebook_has_questions_and_no_other():
    assert quiz_names() == NAMES


def test_a_part_of_a_notebooks_name_is_enough_for_a_suggestion():
    with pytest.raises(InputError, match=r'no notebook .* "start"; did you mean "00_quickstart"'):
        read_quiz("start")


@every_notebook
def test_five_questions_have_choices_and_three_are_free(name):
    quiz = read_quiz(name)
    assert (len(quiz.choices), len(quiz.free)) == (5, 3)
    for choice in quiz.choices:
        texts = [option for option, _ in choice.options]
        assert len(set(texts)) == len(texts) >= 3
        assert 0 <= choice.right < len(texts)
        reasons = [because for _, because in choice.options]
        assert len(set(reasons)) == len(reasons)
        assert all(len(because) > 10 and because.endswith(".") for because in reasons)
    for free in quiz.free:
        assert 2 <= sum(points for points, _ in free.rubric) <= 4
        assert all(points > 0 and what for points, what in free.rubric)
        assert len(free.answer.split()) > 15
        assert free.question.endswith(("?", "."))


def test_the_place_of_an_option_does_not_give_the_answer_away():
    choices = [choice for name in NAMES for choice in read_quiz(name).choices]
    places = Counter(choice.right for choice in choices)
    assert all(places[place] >= 4 for place in range(4)), places
    longest = sum(
        max(choice.options, key=lambda option: len(option[0])) == choice.options[choice.right]
        for choice in choices
    )
    assert longest <= 0.75 * len(choices)


# Answers that a computation can confirm: notebook and question, from 0 -> value
COMPUTED = {
    ("00_quickstart", 2): 5 / 15,
    ("00_quickstart", 4): (1 + 0.3 * 3) / (1 + 3),
    ("01_feature_based_tad", 0): sum(5 - d + 1 for d in (1, 2)),
    ("02_sequential_snippet_encoding", 3): 1 + (1 + 2),
    ("04_proposal_sampling", 0): sum(128 - d + 1 for d in range(1, 129)),
    ("04_proposal_sampling", 2): 100 * (1 - 0.06) ** 10,
    ("05_end_to_end_activitynet", 2): 12_000 * 5e-7,
    ("06_end_to_end_thumos", 2): 1.5 / 2.5,
    ("06_end_to_end_thumos", 4): 0.8 * 2.718281828 ** (-(0.5**2) / 0.5),
    ("07_your_own_videos", 2): 64 / (2 / 2),
}


@pytest.mark.parametrize(("place", "value"), COMPUTED.items())
def test_the_right_option_is_the_computed_one_and_no_other_is(place, value):
    name, number = place
    choice = read_quiz(name).choices[number]
    for position, (option, _) in enumerate(choice.options):
        number = option.replace(",", "").replace(" %", "").split()[-1]
        top, _, below = number.partition("/")
        try:
            said = float(top) / float(below or 1)
        except ValueError:
            assert position != choice.right
            continue
        assert (abs(said - value) <= 0.01 * value) == (position == choice.right), option


@every_notebook
def test_the_text_holds_all_and_folds_the_answers(name):
    quiz, shown = read_quiz(name), text(name)
    assert shown.count("<details>") == shown.count("</details>") == 8
    folded = "".join(part.partition("</details>")[0] for part in shown.split("<details>")[1:])
    for choice in quiz.choices:
        assert f"The answer is **{'abcd'[choice.right]}**" in folded
        for option, because in choice.options:
            assert option in shown
            assert because in folded
    for free in quiz.free:
        assert free.question not in folded
        assert free.answer in folded


@every_notebook
def test_a_choice_is_explained_at_once(name):
    quiz, parts = read_quiz(name), widget(name).children
    assert len(parts) == 8
    for choice, part in zip(quiz.choices, parts, strict=False):
        _, buttons, said = part.children
        assert (buttons.value, said.value) == (None, "")
        for position in range(len(choice.options)):
            buttons.value = position
            assert said.value.startswith("<b>Right.</b>") == (position == choice.right)
            assert len(said.value) > 20
    for part in parts[5:]:
        _, own, folded = part.children
        assert isinstance(own, ipywidgets.Textarea)
        assert folded.selected_index is None


def test_questions_are_shown_as_text_without_a_browser(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    for session, asked in ((None, None), ("a", None), (None, True), ("a", False)):
        monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
        if session:
            monkeypatch.setenv("JPY_SESSION_NAME", session)
        show_quiz(NAMES[0], live=asked)
    assert [isinstance(one, ipywidgets.VBox) for one in shown] == [False, True, True, False]
    assert shown[0].data == shown[3].data == text(NAMES[0])
    main([NAMES[0]])
    assert capsys.readouterr().out.strip() == text(NAMES[0]).strip()
    with pytest.raises(SystemExit, match='did you mean "00_quickstart"'):
        main(["00_quikstart"])


@every_notebook
def test_a_notebook_ends_with_its_questions_as_they_are_now(name):
    """The recorded text is what the file of questions holds; in JupyterLab it is buttons."""
    last = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells[-1]
    assert last.source.endswith(f'show_quiz("{name}")')
    (output,) = last.outputs
    assert output.data["text/markdown"] == text(name), f"python -m etadlite.course.build {name}"


# The teachers' pages

PARTS = ["Time", "On the board", "Mistakes to expect", "To discuss", "Readings", "Questions"]
MISTAKE = re.compile(r"^- `(\w+)`: (.+?)(?=^- |^$)", re.MULTILINE | re.DOTALL)


@cache
def notes(name):
    return (FOLDER / "teachers" / f"{name}.md").read_text(encoding="utf-8")


@cache
def said_about(exercise):
    """What the checker says to the wrong answers of the corpus."""
    said = io.StringIO()
    with redirect_stdout(said):
        for answer, _ in WRONG[exercise]:
            assert not check(exercise, answer)
    return said.getvalue()


@every_notebook
def test_notes_have_all_parts_and_belong_to_the_notebook(name):
    assert re.findall(r"^## (.+)$", notes(name), re.MULTILINE) == PARTS
    assert f"](../{name}.ipynb)" in notes(name)
    assert f"etadlite.course.quiz {name}`" in notes(name)
    assert notes(name).count("<!-- card -->") == notes(name).count("<!-- questions -->") == 1
    (discussion,) = re.findall(r"## To discuss\n(.+?)\n## ", notes(name), re.DOTALL)
    assert len(re.findall(r"^\d\. ", discussion, re.MULTILINE)) >= 4


@every_notebook
def test_a_mistake_of_the_notes_is_one_that_the_checker_names_so(name):
    mistakes = MISTAKE.findall(notes(name))
    assert len(mistakes) >= 5
    source = (FOLDER / "source" / f"{name}.py").read_text(encoding="utf-8")
    for exercise, described in mistakes:
        assert f'"{exercise}"' in source, f"{name} has no exercise {exercise}"
        quoted = re.findall(r'"([^"]+?)[.?]?"', " ".join(described.split()))
        assert len(quoted) == 1, described
        assert quoted[0] in said_about(exercise), f"{exercise}: {quoted[0]}"


def test_a_lesson_takes_as_long_as_its_parts():
    for name in NAMES:
        plan = " ".join(notes(name).partition("## On the board")[0].split())
        lessons = re.findall(r"(?:90 minutes|First|Second): ([^.]+)\.", plan)
        minutes = [sum(map(int, re.findall(r"\b(\d+) (?:for|to)\b", part))) for part in lessons]
        assert minutes in ([90], [90, 90]), (name, minutes)


def test_the_overview_leads_to_all_notes():
    overview = (FOLDER / "teachers.md").read_text(encoding="utf-8")
    assert re.findall(r"\(teachers/(\w+)\.md\)", overview) == NAMES


# The glossary


def terms():
    """Term -> what the glossary says of it."""
    text = (FOLDER / "glossary.md").read_text(encoding="utf-8")
    entries = [entry.split("\n", 1) for entry in re.split(r"^### ", text, flags=re.MULTILINE)[1:]]
    return {term: " ".join(said.split()) for term, said in entries}


@cache
def text_of(notebook):
    """All that a notebook says, on one line."""
    cells = json.loads((FOLDER / notebook).read_text(encoding="utf-8"))["cells"]
    texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    return " ".join(" ".join(texts).split())


def test_every_term_is_used_in_the_notebooks_to_which_it_leads():
    found = terms()
    assert len(found) >= 60
    assert list(found) == sorted(found, key=str.lower)
    for term, said in found.items():
        explained, _, where = re.split(r"(Notebooks? )(?=\[0)", said)
        assert 5 <= len(explained.split()) <= 45, term
        targets = re.findall(r"\[(\d\d)\]\((\d\d)(_\w+\.ipynb)\)", where)
        assert targets, term
        for shown, number, rest in targets:
            assert shown == number
            links = text_of(number + rest).count(f"](glossary.md#{term.replace(' ', '-')})")
            assert links == 1, f"{term}: {number}"


@every_notebook
def test_a_notebook_leads_to_the_glossary_at_the_first_use_of_a_term(name):
    """Each anchor is a heading's as JupyterLab makes it; before the link, no text has the term."""
    anchors = {term.replace(" ", "-"): term for term in terms()}
    said = text_of(f"{name}.ipynb")
    links = [(*link.groups(), link.start()) for link in GLOSSARY.finditer(said)]
    assert len(links) >= 15
    assert len({anchor for _, anchor, _ in links}) == len(links)
    for shown, anchor, place in links:
        term = anchors[anchor]
        assert shown.lower().strip("`").startswith(term.lower()), shown
        either = f"[{term[0].lower()}{term[0].upper()}]{re.escape(term[1:])}"
        explained = re.search(rf"\*{either}s?\*", said[:place])
        assert not explained, f"{term} is explained before its link"
    assert without_glossary(said).count("glossary.md#") == 0


def test_the_course_leads_to_glossary_and_teachers():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "(glossary.md)" in text
    assert "(teachers.md)" in text
