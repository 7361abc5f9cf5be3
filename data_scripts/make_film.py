"""Make a short film of detections: `python data_scripts/make_film.py RUN film.gif`.

RUN is a run that was trained on the generated videos, such as `make demo` leaves. A new video is
generated, the run's detector sees it for the first time, and the film shows it at double speed. The
upper bar has the true actions, the lower one the detections.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from etadlite.base.errors import InputError
from etadlite.runs.film import make_film


def main(
    run: Annotated[Path, typer.Argument(help="Run directory, or its checkpoint.")],
    film: Annotated[Path, typer.Argument(metavar="FILM.gif")],
    seed: Annotated[int, typer.Option(help="Seed of the new video.")] = 4,
    pixels: Annotated[int, typer.Option(help="Side of the video's pictures.")] = 80,
    colours: Annotated[
        int, typer.Option(min=12, help="Colours of the film; fewer make it smaller.")
    ] = 32,
) -> None:
    """Generate a video of 30 s that no training has seen, detect its actions and film them."""
    checkpoint = run / "checkpoint.safetensors" if run.is_dir() else run
    try:
        count = make_film(checkpoint, film, seed=seed, pixels=pixels, colours=colours)
    except InputError as error:
        sys.exit(str(error))
    print(f"{film}: {count} pictures, {film.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    typer.run(main)
