"""The command that goes on with a stopped run."""

import os
import shlex
from pathlib import Path


def resuming(arguments: list[str], folder: Path) -> str:
    """Return the command that continues a run which these arguments began or resumed."""
    if arguments[0] != "train":  # demo and ablate keep finished runs
        return shlex.join(["etadlite", *arguments])
    kept, rest = [], iter(arguments)
    for argument in rest:
        if argument == "--resume":
            next(rest, None)
        elif not argument.startswith("--resume="):
            kept.append(argument)
    start = ["etadlite"]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        nodes = os.environ.get("GROUP_WORLD_SIZE", "1")
        each = os.environ.get("LOCAL_WORLD_SIZE", "1")
        start = ["torchrun", f"--nnodes={nodes}"] if nodes != "1" else ["torchrun"]
        start += [f"--nproc_per_node={each}", "-m", "etadlite"]
    return shlex.join([*start, *kept, "--resume", str(folder)])
