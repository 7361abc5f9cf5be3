"""Pictures with controls: widgets where there is a browser, else a grid of small pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from etadlite.viz.style import pixels, png

if TYPE_CHECKING:
    import ipywidgets

Values = Sequence[Any]


@dataclass(frozen=True)
class Explorer:
    """A picture that depends on what its controls are set to.

    Attributes:
        draw: a value of every control -> figure.
        controls: name, with its unit -> the values that it offers. Numbers get a slider, names a
            list to choose from.
        alt: what is to be seen, in words.
        examples: settings of the controls that the grid shows.
        start: what the controls are set to at first; by default the first example.
    """

    draw: Callable[..., Figure]
    controls: Mapping[str, Values]
    alt: str
    examples: Sequence[Mapping[str, Any]]
    start: Mapping[str, Any] | None = None

    def grid(self, columns: int = 2) -> Figure:
        """The examples side by side, each below its settings."""
        fixed = {
            name
            for name in self.controls
            if len(self.examples) > 1 and len({str(e[name]) for e in self.examples}) == 1
        }
        pictures = [
            pixels(_narrow(self.draw(*example.values())), dpi=200) for example in self._ordered()
        ]
        rows = -(-len(pictures) // columns)
        height = max(picture.shape[0] / picture.shape[1] for picture in pictures)
        width = 12 / columns
        figure = Figure(figsize=(12, rows * (width * height + 0.3)), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, example, picture in zip(axes, self.examples, pictures, strict=False):
            axis.imshow(picture)
            told = [f"{name}: {shown(value)}" for name, value in example.items()]
            told = [text for name, text in zip(example, told, strict=True) if name not in fixed]
            axis.set_title(", ".join(told), fontsize=9, parse_math=False)
            axis.set_anchor("N")
        return figure

    def live(self) -> "ipywidgets.Widget":
        """The controls above the picture, which is drawn anew when one is moved."""
        import ipywidgets
        from IPython.display import Image, display

        def redraw(**values: Any) -> None:
            display(Image(png(self.draw(*values.values())), alt=self.alt))

        first = self.start or self.examples[0]
        controls = {name: _control(name, v, first[name]) for name, v in self.controls.items()}
        picture = ipywidgets.interactive_output(redraw, controls)
        return ipywidgets.VBox([*controls.values(), picture])

    def _ordered(self) -> list[dict[str, Any]]:
        """The examples with their settings in the controls' order."""
        return [{name: example[name] for name in self.controls} for example in self.examples]


def slider(
    draw: Callable[[Any], Figure], values: Values, name: str, alt: str, *, examples: int = 4
) -> Explorer:
    """One control, and examples spread evenly over its values."""
    steps = max(examples - 1, 1)
    picked = [values[round(i * (len(values) - 1) / steps)] for i in range(examples)]
    return Explorer(draw, {name: values}, alt, [{name: value} for value in picked])


def shown(value: Any) -> str:
    """A control's value as it is written beside it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _control(name: str, values: Values, first: Any) -> "ipywidgets.Widget":
    import ipywidgets

    options = [(shown(value), value) for value in values]
    style = {"description_width": "12em"}
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        made = ipywidgets.SelectionSlider(
            options=options, value=first, description=name, continuous_update=False, style=style
        )
        made.layout.width = "80%"
        return made
    return ipywidgets.Dropdown(options=options, value=first, description=name, style=style)


def _narrow(figure: Figure) -> Figure:
    """The figure on half the width, so that its text stays readable there."""
    figure.set_size_inches(6.6, figure.get_figheight() * 0.8)
    return figure
