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
from etadlite.viz.style import COLOURS, colours_of, pixels, png
from etadlite.viz.timeline import Segments, best, draw_row, lanes_of

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
        from IPython.display import HTML, display

        def redraw(**values: Any) -> None:
            # JupyterLab leaves out the alternative text of a picture that is no HTML.
            data = b64encode(png(self.draw(*values.values()))).decode()
            source = f"data:image/png;base64,{data}"
            display(HTML(f'<img src="{source}" alt="{escape(self.alt)}">'))

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


def player(
    video: Path,
    detections: Segments,
    truth: Segments = (),
    *,
    labels: Sequence[str] = (),
    moments: int = 60,
    height: int = 180,
) -> Explorer:
    """Scrub a video with its detections: moment, lowest score, number of detections.

    Args:
        video: the file.
        detections: {"segment": [start s, end s], "label", "score"} each.
        truth: the true actions, {"segment", "label"} each.
        labels: all classes, so that each keeps its colour.
        moments: frames that can be seen, spread evenly over the video.
        height: of the frames, in pixels.
    """
    opened = Video(video)
    info = opened.info
    times = (np.arange(moments) + 0.5) * info.duration / moments
    width = max(2, round(height * info.width / info.height))
    indices = np.minimum(times * info.frames / info.duration, info.frames - 1).astype(int)
    frames = opened.frames(indices, (height, width)).permute(0, 2, 3, 1).numpy()
    seen = {round(float(time), 1): frame for time, frame in zip(times, frames, strict=True)}
    colours = colours_of(labels or sorted({item["label"] for item in (*truth, *detections)}))

    def draw(time: float, score: float, top: int) -> Figure:
        kept = best([item for item in detections if item["score"] >= score], top)
        rows = {"true": truth, "detected": kept} if truth else {"detected": kept}
        lanes = {name: lanes_of(segments) for name, segments in rows.items()}
        heights = [2.4] + [
            0.34 * max(max(lane, default=0) + 1, 1) + 0.12 for lane in lanes.values()
        ]
        figure = Figure(figsize=(12, sum(heights) + 0.9), layout="constrained")
        picture, *axes = figure.subplots(len(heights), 1, height_ratios=heights)
        picture.imshow(seen[time])
        picture.axis("off")
        now = [
            f"{name}: {_told(item)}"
            for name, segments in rows.items()
            for item in segments
            if item["segment"][0] <= time <= item["segment"][1]
        ]
        picture.set_title(f"{time:.1f} s   {',  '.join(now[:6]) or 'nothing'}", fontsize=10)
        for axis, (name, segments) in zip(axes, rows.items(), strict=True):
            draw_row(axis, name, segments, lanes[name], colours=colours, duration=info.duration)
            axis.axvline(time, color="black", linewidth=1.5)
        axes[-1].set_xlabel("time (s)")
        return figure

    offered = list(seen)
    highest = max((item["score"] for item in detections), default=1.0)
    scores = [round(highest * share / 10, 3) for share in range(10)]
    tops = [1, 2, 3, 5, 10, 20, 50]
    controls = {"time (s)": offered, "score at least": scores, "at most": tops}
    middle = offered[len(offered) // 2]
    if truth:  # a moment at which something happens
        start, end = truth[0]["segment"]
        middle = min(offered, key=lambda time: abs(time - (start + end) / 2))
    examples = [
        dict(zip(controls, values, strict=True))
        for values in (
            (middle, scores[0], 5),
            (middle, scores[5], 5),
            (middle, scores[0], 20),
            (offered[-1], scores[5], 20),
        )
    ]
    what = "true actions and detections" if truth else "detections"
    alt = f"A frame of {video.stem} above the timeline of its {what}"
    return Explorer(draw, controls, alt, examples)


def sampler_explorer(
    snippets: int,
    *,
    actions: Tensor | None = None,
    features: Tensor | None = None,
    gradient: Tensor | None = None,
    ratios: Sequence[float] = (0.1, 0.2, 0.3, 0.5, 0.75),
    seeds: int = 10,
) -> Explorer:
    """Which snippets of a video a strategy picks: strategy, ratio, seed.

    Strategies that need what is not given are left out.

    Args:
        snippets: N.
        actions: [A, 2] start and end in cells.
        features: [C, N].
        gradient: [C, N]; where given, its norm is the bars' height.
        ratios: shares of the snippets to choose from.
        seeds: how many draws can be looked at.
    """
    known = {"nothing": True, "labels": actions is not None}
    known |= {"features": features is not None, "gradient": gradient is not None}
    names = [name for name, strategy in SNIPPET_STRATEGIES.items() if known[strategy.needs]]
    one = [None if given is None else given[None] for given in (features, gradient)]
    height = np.ones(snippets) if gradient is None else gradient.norm(dim=0).cpu().numpy()

    def draw(strategy: str, ratio: float, seed: int) -> Figure:
        context = SnippetContext(
            Draws([seed]), snippets, None if actions is None else [actions], *one
        )
        count = snippet_count(snippets, ratio)
        picked = SNIPPET_STRATEGIES[strategy].pick(context, count)[0].cpu().numpy()
        figure = Figure(figsize=(12, 2.6), layout="constrained")
        axis = figure.subplots()
        colours = np.full(snippets, COLOURS[7], dtype=object)
        colours[picked] = COLOURS[0]
        axis.bar(np.arange(snippets) + 0.5, height, width=0.8, color=list(colours))
        top = 1.12 * float(height.max())
        for start, end in () if actions is None else actions.tolist():
            axis.plot([start, end], [top, top], color=COLOURS[3], linewidth=5)
        axis.set(xlim=(0, snippets), ylim=(0, 1.1 * top), xlabel="snippet (cell)")
        axis.set_ylabel("" if gradient is None else "norm of the gradient")
        axis.spines[["top", "right"]].set_visible(False)
        if gradient is None:
            axis.set_yticks([])
        axis.set_title(f"{len(picked)} of {snippets} snippets", fontsize=10)
        return figure

    controls = {"strategy": names, "ratio": list(ratios), "seed": list(range(seeds))}
    ratio = 0.3 if 0.3 in ratios else ratios[len(ratios) // 2]
    examples = [{"strategy": name, "ratio": ratio, "seed": 0} for name in names]
    marks = "orange lines above are true actions" if actions is not None else "bars are snippets"
    return Explorer(
        draw, controls, f"Picked snippets are dark blue, others grey; {marks}", examples
    )


def memory_dial(
    settings: Settings,
    budget: int,
    *,
    batches: Sequence[int] = (1, 2, 4, 8),
    snippets: Sequence[int] = (32, 64, 128, 256),
    chunks: Sequence[int] = (1, 4, 16, 64),
    ratios: Sequence[float] = (0.1, 0.3, 0.5, 1.0),
    precisions: Sequence[str] = ("fp32", "bf16"),
    needs: Callable[[Settings], Mapping[str, int]] | None = None,
) -> Explorer:
    """What a training step needs, part by part, against a budget.

    Args:
        settings: of the run; the controls change them.
        budget: bytes that the machine has.
        batches: B, videos a step.
        snippets: N, snippets a video.
        chunks: snippets encoded at once.
        ratios: shares of the snippets with a gradient.
        precisions: of the encoder.
        needs: settings -> bytes by part; by default those of `etadlite.memory.plan`.
    """
    stack = needs or (lambda chosen: plan(chosen).rows.stack())
    limit = budget / 2**20

    def draw(batch: int, n: int, chunk: int, ratio: float, precision: str) -> Figure:
        chosen = settings.changed(
            [
                f"training.batch_size={batch}",
                f"data.snippets={n}",
                f"detector.max_duration={min(settings.detector.max_duration, n)}",
                f"encoder.chunk_size={chunk}",
                f"sampling.snippet_ratio={ratio}",
                f"training.precision={precision}",
            ]
        )
        parts = {name: size / 2**20 for name, size in stack(chosen).items() if size}
        total = sum(parts.values())
        figure = Figure(figsize=(12, 2.2), layout="constrained")
        axis = figure.subplots()
        left = 0.0
        for number, (name, size) in enumerate(parts.items()):
            colour = COLOURS[number % len(COLOURS)]
            axis.barh(0, size, left=left, color=colour, edgecolor="white", label=name)
            left += size
        axis.axvline(limit, color="black", linestyle="--", linewidth=1.5)
        axis.text(limit, 0.45, " budget", va="bottom", fontsize=9)
        fits = "fits" if total <= limit else "does not fit"
        axis.set_title(f"{total:,.0f} MiB of {limit:,.0f} MiB: {fits}", fontsize=10)
        axis.set(xlim=(0, 1.15 * max(total, limit)), ylim=(-0.5, 0.75), yticks=[])
        axis.set_xlabel("memory of a training step (MiB)")
        axis.spines[["top", "right", "left"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
        return figure

    controls = {
        "batch (videos)": list(batches),
        "N (snippets)": list(snippets),
        "chunk (snippets)": list(chunks),
        "ratio": list(ratios),
        "precision": list(precisions),
    }
    first = {name: values[min(1, len(values) - 1)] for name, values in controls.items()}
    first["precision"] = precisions[0]
    examples = [first] + [
        first | {name: controls[name][-1]} for name in list(controls)[:3] if len(controls[name]) > 1
    ]
    alt = "A bar of the memory that a training step needs, part by part, beside the budget's line"
    return Explorer(draw, controls, alt, examples)


def _told(item: Mapping[str, Any]) -> str:
    score = item.get("score")
    return item["label"] if score is None else f"{item['label']} {score:.2f}"


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
