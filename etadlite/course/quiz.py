"""Questions about each notebook: five with choices, three to be answered in words.

    python -m etadlite.course.quiz NAME

prints those of a notebook as Markdown; in a notebook, `show_quiz(NAME)` shows them with buttons.
They stand in `questions/NAME.toml`: every choice has an explanation, every free question an answer
and what each part of it is worth.
"""

import argparse
import hashlib
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from etadlite.base.errors import InputError
from etadlite.course.notebook import in_browser, known

if TYPE_CHECKING:
    import ipywidgets

_FOLDER = files("etadlite.course") / "questions"


@dataclass(frozen=True)
class Choice:
    """A question of which one option is right; options are pairs of a text and an explanation."""

    question: str
    options: tuple[tuple[str, str], ...]
    right: int  # its place among the options, from 0


@dataclass(frozen=True)
class Free:
    """A question to be answered in words; the rubric's pairs are points and what earns them."""

    question: str
    answer: str
    rubric: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Quiz:
    """The questions about one notebook."""

    choices: tuple[Choice, ...]
    free: tuple[Free, ...]


def quiz_names() -> list[str]:
    """Return the names of the notebooks that have questions, in order."""
    return sorted(file.name.removesuffix(".toml") for file in _FOLDER.iterdir())


def read_quiz(name: str) -> Quiz:
    """Read the questions about a notebook.

    The options come in an order that follows from their texts and does not give the answer away.

    Raises:
        InputError: there are none for this notebook.
    """
    known("notebook with questions", name, quiz_names(), 0.4)
    found = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    choices = []
    for entry in found["choice"]:
        options = sorted([entry["right"], *entry["wrong"]], key=_shuffled)
        place = options.index(entry["right"])
        choices.append(Choice(entry["question"], tuple(map(tuple, options)), place))
    free = [
        Free(entry["question"], entry["answer"], tuple(map(tuple, entry["rubric"])))
        for entry in found["free"]
    ]
    return Quiz(tuple(choices), tuple(free))


def text(name: str) -> str:
    """Return the questions about a notebook in Markdown, the answers folded."""
    quiz, lines = read_quiz(name), []
    for number, choice in enumerate(quiz.choices, 1):
        lines += [f"**{number}.** {choice.question}", ""]
        lines += [f"- {letter}: {option}" for letter, option, _ in _lettered(choice)]
        lines += ["", "<details><summary>Answer</summary>", ""]
        lines += [f"The answer is **{'abcdef'[choice.right]}**.", ""]
        lines += [f"- {letter}: {because}" for letter, _, because in _lettered(choice)]
        lines += ["", "</details>", ""]
    for number, free in enumerate(quiz.free, len(quiz.choices) + 1):
        lines += [f"**{number}.** (in words) {free.question}", ""]
        lines += ["<details><summary>An answer, and what counts</summary>", "", free.answer, ""]
        lines += [f"- {_points(points)}: {what}" for points, what in free.rubric]
        lines += ["", "</details>", ""]
    return "\n".join(lines)


def show_quiz(name: str, *, live: bool | None = None) -> None:
    """Show the questions about a notebook in it: with buttons if `live`, else as text.

    None chooses: buttons in JupyterLab, and text where nobody could press them.
    """
    from IPython.display import Markdown, display

    display(widget(name) if (in_browser() if live is None else live) else Markdown(text(name)))


def widget(name: str) -> "ipywidgets.Widget":
    """Return the questions with buttons: what is chosen is explained at once."""
    import ipywidgets

    quiz = read_quiz(name)
    parts = [_choice_widget(number, choice) for number, choice in enumerate(quiz.choices, 1)]
    first = len(quiz.choices) + 1
    parts += [_free_widget(number, free) for number, free in enumerate(quiz.free, first)]
    return ipywidgets.VBox(parts)


def _choice_widget(number: int, choice: Choice) -> "ipywidgets.Widget":
    import ipywidgets

    options = [(option.replace("`", ""), i) for i, (option, _) in enumerate(choice.options)]
    wide = {"width": "100%"}
    buttons = ipywidgets.RadioButtons(options=options, value=None, layout=wide)
    said = ipywidgets.HTML()

    def explain(change: dict) -> None:
        verdict = "Right." if change["new"] == choice.right else "No."
        said.value = f"<b>{verdict}</b> {_html(choice.options[change['new']][1])}"

    buttons.observe(explain, names="value")
    asked = ipywidgets.HTML(f"<b>{number}.</b> {_html(choice.question)}")
    return ipywidgets.VBox([asked, buttons, said])


def _free_widget(number: int, free: Free) -> "ipywidgets.Widget":
    import ipywidgets

    asked = ipywidgets.HTML(f"<b>{number}.</b> {_html(free.question)}")
    own = ipywidgets.Textarea(placeholder="Your answer", layout={"width": "95%"})
    counts = "".join(f"<li>{_points(p)}: {_html(what)}</li>" for p, what in free.rubric)
    answer = ipywidgets.HTML(f"{_html(free.answer)}<ul>{counts}</ul>")
    folded = ipywidgets.Accordion([answer], titles=("An answer, and what counts",))
    return ipywidgets.VBox([asked, own, folded])


def _lettered(choice: Choice) -> list[tuple[str, str, str]]:
    return [(letter, *option) for letter, option in zip("abcdef", choice.options, strict=False)]


def _points(points: int) -> str:
    return f"{points} point" + "s" * (points != 1)


def _html(words: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))


def _shuffled(option: Sequence[str]) -> str:
    return hashlib.sha256(option[0].encode()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the questions about a notebook from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", metavar="NAME", help="of a notebook, such as 00_quickstart")
    try:
        print(text(parser.parse_args(arguments).name))
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
