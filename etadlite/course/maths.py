"""Formulae as MathML, which browsers show without a script: for the book and the slides."""

import re

CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
FORMULA = re.compile(r"(?<![\\$])(\$\$?)(?!\s)([^$]+?)(?<![\s\\])\1(?![\d$])")


def mathml(latex: str, *, block: bool = False) -> str:
    """Return a formula in LaTeX as a `<math>` element; `block` gives it a line of its own."""
    from latex2mathml.converter import convert

    return convert(" ".join(latex.split()), display="block" if block else "inline")


def with_mathml(markdown: str) -> str:
    """Return a text in Markdown with MathML instead of `$...$` and `$$...$$`, except in code."""
    parts = CODE.split(markdown)
    parts[::2] = [
        FORMULA.sub(lambda found: mathml(found[2], block=found[1] == "$$"), part)
        for part in parts[::2]
    ]
    return "".join(parts)
