"""Make the stick-figure data set: `python data_scripts/make_stickfigures.py data/stickfigures`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from etadlite.base.errors import InputError
from etadlite.stickfigures.dataset import make_dataset


def main(
    root: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    size: Annotated[str, typer.Option(help="smoke, laptop or large.")] = "laptop",
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Number of processes; by default one per core.")
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Write videos and annotations of generated stick figures."""
    try:
        print(make_dataset(root, size, seed, workers=workers, progress=progress))
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    typer.run(main)
