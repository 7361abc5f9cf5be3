"""Widgets: what a setting shows, the grid without a browser, and controls that draw again."""

from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from etadlite.base.draws import Draws
from etadlite.memory.plan import plan
from etadlite.presets import preset
from etadlite.sampling.snippets import SNIPPET_STRATEGIES, SnippetContext
from etadlite.viz import widgets
from etadlite.viz.style import COLOURS, pixels
from etadlite.viz.widgets import Explorer, memory_dial, player, sampler_explorer, slider


def blank(value):
    figure = Figure(figsize=(4, 1))
    figure.suptitle(str(value))
    return figure


def draw_at(explorer, **changed):
    setting = {**explorer.examples[0], **changed}
    return explorer.draw(*(setting[name] for name in explorer.controls))


def test_a_slider_spreads_its_examples_evenly():
    explorer = slider(blank, [0.1, 0.2, 0.3, 0.4, 0.5], "ratio", "a picture", examples=3)
    assert [example["ratio"] for example in explorer.examples] == [0.1, 0.3, 0.5]


def test_the_grid_shows_every_example_with_the_settings_that_differ():
    controls = {"size (cm)": [1, 2], "colour": ["red", "blue"]}
    examples = [{"colour": "red", "size (cm)": 1}, {"colour": "blue", "size (cm)": 1}]
    drawn = []
    explorer = Explorer(
        lambda size, colour: drawn.append((size, colour)) or blank(size), controls, "x", examples
    )
    grid = explorer.grid()
    assert drawn == [(1, "red"), (1, "blue")]
    assert [axis.get_title() for axis in grid.axes] == ["colour: red", "colour: blue"]
    assert pixels(grid).std() > 1  # something is on it


def test_a_moved_control_draws_again():
    drawn = []
    explorer = Explorer(
        lambda ratio, name: drawn.append((ratio, name)) or blank(ratio),
        {"ratio": [0.1, 0.5], "strategy": ["random", "grid"]},
        "a picture",
        [{"ratio": 0.1, "strategy": "random"}],
    )
    box = explorer.live()
    ratio, strategy, picture = box.children
    assert isinstance(ratio, ipywidgets.SelectionSlider)
    assert isinstance(strategy, ipywidgets.Dropdown)
    assert isinstance(picture, ipywidgets.Output)
    ratio.value = 0.5
    strategy.value = "grid"
    assert drawn == [(0.1, "random"), (0.5, "random"), (0.5, "grid")]


def test_the_player_shows_the_frame_of_its_moment_and_the_best_detections(tiny):
    video = sorted((tiny.data / "videos").glob("*.mp4"))[0]
    found = [
        {"segment": [2.0 * i, 2.0 * i + 1.5], "label": "kick", "score": 0.9 - 0.1 * i}
        for i in range(8)
    ]
    truth = [{"segment": [2, 4], "label": "kick"}]
    explorer = player(video, found, truth, moments=6, height=48)
    moments = explorer.controls["time (s)"]
    assert len(moments) == 6

    def bars(figure):
        return len(figure.axes[2].patches)

    assert bars(draw_at(explorer, **{"at most": 3})) == 3
    assert bars(draw_at(explorer, **{"at most": 50, "score at least": 0.45})) == 5
    first, last = (draw_at(explorer, **{"time (s)": m}) for m in (moments[0], moments[-1]))
    assert "detected: kick" in draw_at(explorer, **{"time (s)": moments[0]}).axes[0].get_title()
    shown = [figure.axes[0].images[0].get_array() for figure in (first, last)]
    assert shown[0].shape == (48, 48, 3)
    assert not np.array_equal(*shown)
    assert last.axes[1].lines[0].get_xdata()[0] == moments[-1]
    assert pixels(explorer.grid()).std() > 1


def test_the_sampler_explorer_marks_what_the_strategy_picks():
    gradient = torch.rand(4, 20, generator=torch.Generator().manual_seed(0))
    explorer = sampler_explorer(20, gradient=gradient)
    offered = explorer.controls["strategy"]
    assert set(offered) == {n for n, s in SNIPPET_STRATEGIES.items() if s.needs[0] in "ng"}
    for seed in (0, 3):
        axis = draw_at(explorer, strategy="random", ratio=0.3, seed=seed).axes[0]
        dark = [i for i, bar in enumerate(axis.patches) if _is(bar.get_facecolor(), COLOURS[0])]
        context = SnippetContext(Draws([seed]), 20)
        assert dark == SNIPPET_STRATEGIES["random"].pick(context, 6)[0].tolist()
        assert [bar.get_height() for bar in axis.patches] == pytest.approx(gradient.norm(dim=0))


def test_the_sampler_explorer_offers_what_its_inputs_allow():
    plain = sampler_explorer(8).controls["strategy"]
    every = sampler_explorer(
        8,
        actions=torch.tensor([[1.0, 3.0]]),
        features=torch.randn(4, 8),
        gradient=torch.randn(4, 8),
    )
    assert set(plain) < set(every.controls["strategy"]) == set(SNIPPET_STRATEGIES)
    for name in SNIPPET_STRATEGIES:
        draw_at(every, strategy=name)


def test_the_memory_dial_compares_the_parts_with_the_budget(monkeypatch):
    asked = []

    def planned(settings):
        asked.append(settings)
        parts = {"weights": 2**20, "frames": 2**20 * settings.training.batch_size, "none": 0}
        return SimpleNamespace(rows=SimpleNamespace(stack=lambda: parts))

    monkeypatch.setattr(widgets, "plan", planned)
    explorer = memory_dial(preset("e2e_stickfigures"), 5 * 2**20)
    setting = {"batch (videos)": 4, "N (snippets)": 32, "precision": "bf16"}
    axis = draw_at(explorer, **setting).axes[0]
    assert axis.get_title() == "5 MiB of 5 MiB: fits"
    assert [bar.get_width() for bar in axis.patches] == [1, 4]
    chosen = asked[-1]
    assert (chosen.data.snippets, chosen.detector.max_duration) == (32, 32)
    assert chosen.training.precision == "bf16"
    assert "does not fit" in draw_at(explorer, **{"batch (videos)": 8}).axes[0].get_title()


@pytest.mark.slow
def test_the_memory_dial_asks_the_plan():
    settings = preset("e2e_stickfigures", ["device=cpu", "training.precision=fp32"])
    explorer = memory_dial(settings, 2**30, batches=[2], chunks=[16])
    axis = draw_at(explorer, **{"N (snippets)": 64}).axes[0]
    total = plan(settings).rows.total / 2**20
    assert axis.get_title() == f"{total:,.0f} MiB of 1,024 MiB: fits"


def _is(colour, other):
    return to_hex(colour).lower() == other.lower()
