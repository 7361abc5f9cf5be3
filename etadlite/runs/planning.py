"""The memory of a training step in words and as a picture, for `etadlite plan`."""

import json
from pathlib import Path

from etadlite.config import Settings
from etadlite.memory.measurement import measure_step
from etadlite.memory.plan import advice, memory_table, plan, with_chunk_size
from etadlite.viz.memory import draw_memory
from etadlite.viz.style import save


def explain_memory(
    settings: Settings,
    budget: str | None = None,
    *,
    measure: bool = False,
    picture: Path | None = None,
    as_json: bool = False,
) -> str:
    """Return a table of what a step is predicted to hold, and what fits a budget such as `6GB`.

    `measure` also measures a step on random frames; `picture` is a file for stacked bars. As JSON
    it is one object: bytes of each part, predicted and measured, and what fits, in words.

    Raises:
        InputError: the budget is no size, or too little.
    """
    settings = with_chunk_size(settings)
    planned = plan(settings)
    measured = measure_step(settings).rows if measure else None
    lines = [memory_table(planned, measured)]
    bars = {"predicted": planned.rows} | ({} if measured is None else {"measured": measured})
    if picture is not None:
        lines.append(f"picture: {save(draw_memory(bars, title=settings.name), picture)}")
    if budget is not None:
        size = settings.changed({"training.memory": budget}).training.memory
        assert size is not None
        lines.append(advice(settings, size))
    if as_json:
        parts = {name: rows.stack() | {"total": rows.total} for name, rows in bars.items()}
        where = {"device": planned.device, "videos": settings.training.batch_size}
        fits = None if budget is None else lines[-1]
        return json.dumps(where | {"bf16": planned.bf16, **parts, "fits": fits})
    return "\n".join(lines)
