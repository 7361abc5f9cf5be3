"""Pictures with controls: widgets where there is a browser, else a grid of small pictures."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from etadlite.base.draws import Draws
from etadlite.config import Settings
from etadlite.data.video import Video
from etadlite.memory.plan import plan
from etadlite.sampling.snippets import SNIPPET_STRATEGIES, SnippetContext, snippet_count
from etadlite.viz.style import (
    COLOURS,
    legend_outside,
    looks_of,
    pixels,
    plain,
    png,
    readable,
    tidy,
)
from etadlite.viz.timeline import Segments, best, caption, draw_rows

if TYPE_CHECKING:
    import ipywidgets

Values = Sequence[Any]


@dataclass(frozen=True)
class Explorer:
    """A picture that depends on its controls: numbers have a slider, names a list."""

    draw: Callable[..., Figure]  # takes a value of every control, in their order
    controls: Mapping[str, Values]  # name with unit -> the values to choose from
    alt: str  # what the picture shows, in words
    examples: Sequence[
        Mapping[str, Any]
    ]  # settings that the grid shows; controls start at the first

    def grid(self) -> Figure:
        """Draw the examples in two columns; each has a title with the settings that differ."""
        settings = {name: {str(e[name]) for e in self.examples} for name in self.controls}
        titled = {n for n, seen in settings.items() if len(seen) > 1 or len(self.examples) == 1}
        pictures = []
        for example in self.examples:
            figure = self.draw(*(example[name] for name in self.controls))
            # On half the width the text stays readable.
            figure.set_size_inches(6.6, figure.get_figheight() * 0.8)
            pictures.append(pixels(figure, dpi=200))
        rows = -(-len(pictures) // 2)
        height = max(picture.shape[0] / picture.shape[1] for picture in pictures)
        figure = Figure(figsize=(12, rows * (6 * height + 0.3)), layout="constrained")
        axes = figure.subplots(rows, 2, squeeze=False).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, example, picture in zip(axes, self.examples, pictures, strict=False):
            axis.imshow(picture)
            texts = [f"{name}: {shown(value)}" for name, value in example.items() if name in titled]
            axis.set_title(", ".join(texts), fontsize=9, parse_math=False)
            axis.set_anchor("N")
        return plain(figure)

    def live(self) -> "ipywidgets.Widget":
        """Return the controls above the picture, which is drawn again when one is moved."""
        import ipywidgets
        from IPython.display import HTML, display

        def redraw(**values: Any) -> None:
            # JupyterLab leaves out the alternative text of a picture that is not HTML.
            data = b64encode(png(self.draw(*values.values()))).decode()
            display(HTML(f'<img src="data:image/png;base64,{data}" alt="{escape(self.alt)}">'))

        first = self.examples[0]
        controls = {name: _control(name, v, first[name]) for name, v in self.controls.items()}
        picture = ipywidgets.interactive_output(redraw, controls)
        return ipywidgets.VBox([*controls.values(), picture])


def slider(
    draw: Callable[[Any], Figure], values: Values, name: str, alt: str, *, examples: int = 4
) -> Explorer:
    """Return an explorer with one control; its examples are spread evenly over the values."""
    steps = max(examples - 1, 1)
    picked = [values[round(i * (len(values) - 1) / steps)] for i in range(examples)]
    return Explorer(draw, {name: values}, alt, [{name: value} for value in picked])


def player(
    video: Path,
    detections: Segments,
    truth: Segments = (),
    *,
    labels: Sequence[str] = (),
    moments: int = 60,
    height: int = 180,
) -> Explorer:
    """Scrub a video file with its detections; controls: moment, lowest score, number.

    Detections and true actions are {"segment": [start s, end s], "label"}, detections with a
    "score". `labels` are all classes, so that each keeps its look. There are `moments` frames to
    choose from, `height` pixels high and spread evenly over the video.
    """
    opened = Video(video)
    duration = opened.info.duration
    times = (np.arange(moments) + 0.5) * duration / moments
    frames = dict(zip(times.round(1).tolist(), opened.strip(moments, height), strict=True))
    known = labels or sorted({item["label"] for item in (*truth, *detections)})
    looks, names = looks_of(known), readable(known)

    def draw(time: float, score: float, top: int) -> Figure:
        kept = best([item for item in detections if item["score"] >= score], top)
        rows = {"true": truth, "detected": kept} if truth else {"detected": kept}
        figure = draw_rows(rows, looks, names, duration, 2.4)
        picture, *axes = figure.axes
        picture.imshow(frames[time])
        picture.axis("off")
        now = [
            f"{name}: {caption(item, names[item['label']])}"
            for name, segments in rows.items()
            for item in segments
            if item["segment"][0] <= time <= item["segment"][1]
        ]
        picture.set_title(f"{time:.1f} s   {',  '.join(now[:6]) or 'nothing'}", fontsize=10)
        for axis in axes:
            axis.axvline(time, color="black", linewidth=1.5)
        return plain(figure)

    offered = list(frames)
    highest = max((item["score"] for item in detections), default=1.0)
    scores = [round(highest * share / 10, 3) for share in range(10)]
    controls = {"time (s)": offered, "score at least": scores, "at most": [1, 2, 3, 5, 10, 20, 50]}
    middle = offered[len(offered) // 2]
    if truth:  # a moment at which something happens
        middle = min(offered, key=lambda time: abs(time - sum(truth[0]["segment"]) / 2))
    low, half = scores[0], scores[5]
    first = (middle, low, 5), (middle, half, 5), (middle, low, 20), (offered[-1], half, 20)
    examples = [dict(zip(controls, values, strict=True)) for values in first]
    what = "true actions and detections" if truth else "detections"
    alt = f"A frame of {video.stem} above the timeline of its {what}"
    return Explorer(draw, controls, alt, examples)


def sampler_explorer(
    snippets: int,
    *,
    actions: Tensor | None = None,
    features: Tensor | None = None,
    gradient: Tensor | None = None,
) -> Explorer:
    """Show which snippets of a video a strategy picks; controls: strategy, ratio, seed.

    The video has N = `snippets` snippets, `actions` [A, 2] (start and end in cells) and `features`
    [C, N]. The height of the bars is the norm of the `gradient` [C, N]. Strategies that need an
    argument that is not given are left out.
    """
    given = {"nothing": True, "labels": actions, "features": features, "gradient": gradient}
    names = [n for n, strategy in SNIPPET_STRATEGIES.items() if given[strategy.needs] is not None]
    tensors = [None if value is None else value[None] for value in (features, gradient)]
    batch = None if actions is None else [actions], *tensors
    height = np.ones(snippets) if gradient is None else gradient.norm(dim=0).cpu().numpy()

    def draw(strategy: str, ratio: float, seed: int) -> Figure:
        context = SnippetContext(Draws([seed]), snippets, *batch)
        count = snippet_count(snippets, ratio)
        picked = SNIPPET_STRATEGIES[strategy].pick(context, count)[0].tolist()
        figure = Figure(figsize=(12, 2.6), layout="constrained")
        axis = figure.subplots()
        colours = [COLOURS[0] if snippet in picked else COLOURS[7] for snippet in range(snippets)]
        axis.bar(np.arange(snippets) + 0.5, height, width=0.8, color=colours)
        top = 1.12 * float(height.max())
        for span in () if actions is None else actions.tolist():
            axis.plot(span, [top, top], color=COLOURS[3], linewidth=5)
        axis.set(xlim=(0, snippets), ylim=(0, 1.1 * top), xlabel="snippet (cell)")
        if gradient is None:
            axis.set_yticks([])
        else:
            axis.set_ylabel("norm of the gradient")
        axis.set_title(f"{len(picked)} of {snippets} snippets", fontsize=10)
        tidy(axis)
        return plain(figure)

    controls = {"strategy": names, "ratio": [0.1, 0.2, 0.3, 0.5, 0.75], "seed": list(range(10))}
    examples = [{"strategy": name, "ratio": 0.3, "seed": 0} for name in names]
    marks = "orange lines above are true actions" if actions is not None else "bars are snippets"
    alt = f"Picked snippets are dark blue, others grey; {marks}"
    return Explorer(draw, controls, alt, examples)


def memory_dial(
    settings: Settings,
    budget: int,
    *,
    batches: Sequence[int] = (1, 2, 4, 8),
    snippets: Sequence[int] = (32, 64, 128, 256),
    chunks: Sequence[int] = (1, 4, 16, 64),
) -> Explorer:
    """Show what a training step needs by the memory plan, part by part, against a budget in bytes.

    The controls change the settings of the run: B videos per step, N snippets per video, snippets
    encoded at once, the ratio of snippets with a gradient, and the encoder's precision.
    """
    limit = budget / 2**20

    def draw(batch: int, n: int, chunk: int, ratio: float, precision: str) -> Figure:
        changes = {
            "training.batch_size": batch,
            "data.snippets": n,
            "detector.max_duration": min(settings.detector.max_duration, n),
            "encoder.chunk_size": chunk,
            "sampling.snippet_ratio": ratio,
            "training.precision": precision,
        }
        parts = plan(settings.changed(changes)).rows.stack()
        figure = Figure(figsize=(12, 2.2), layout="constrained")
        axis = figure.subplots()
        total = 0.0
        for name, size in parts.items():
            if size:
                colour = COLOURS[len(axis.patches) % len(COLOURS)]
                axis.barh(0, size / 2**20, left=total, color=colour, edgecolor="white", label=name)
                total += size / 2**20
        axis.axvline(limit, color="black", linestyle="--", linewidth=1.5)
        axis.text(limit, 0.45, " budget", va="bottom", fontsize=9)
        fits = "fits" if total <= limit else "does not fit"
        axis.set_title(f"{total:,.0f} MiB of {limit:,.0f} MiB: {fits}", fontsize=10)
        axis.set(xlim=(0, 1.15 * max(total, limit)), ylim=(-0.5, 0.75), yticks=[])
        axis.set_xlabel("memory of a training step (MiB)")
        tidy(axis, hidden=("top", "right", "left"))
        legend_outside(figure, "lower center", ncols=4, fontsize=8)
        return plain(figure)

    sizes = {"batch (videos)": batches, "N (snippets)": snippets, "chunk (snippets)": chunks}
    controls = sizes | {"ratio": (0.1, 0.3, 0.5, 1.0), "precision": ("fp32", "bf16")}
    first = {name: values[:2][-1] for name, values in controls.items()} | {"precision": "fp32"}
    larger = [{name: values[-1]} for name, values in sizes.items() if len(values) > 1]
    alt = "A bar of the memory that a training step needs, part by part, beside the budget's line"
    return Explorer(draw, controls, alt, [first, *(first | change for change in larger)])


def shown(value: Any) -> str:
    """Return the value of a control as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _control(name: str, values: Values, first: Any) -> "ipywidgets.Widget":
    import ipywidgets

    common = {"value": first, "description": name, "style": {"description_width": "12em"}}
    common["options"] = [(shown(value), value) for value in values]
    if isinstance(first, str):
        return ipywidgets.Dropdown(**common)
    return ipywidgets.SelectionSlider(**common, continuous_update=False, layout={"width": "80%"})
