"""A convolution over time, computed over rows of pixels and in three axes: time and difference.

    python tests/benchmarks/convolutions.py [--snippets 1 4 8 16 32] [--threads 1 2] [--json FILE]

The sizes are those of the second stage of R(2+1)D-18 at crop 56; a pass forwards and one backwards.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from report import machine, write_report
from torch import Tensor, nn

from etadlite.base.tables import aligned
from etadlite.encoders.staged import TemporalConv

CHANNELS, PLANES, FRAMES, SIDE, REPEATS = 144, 64, 16, 28, 5
NAMES = "threads", "snippets", "rows_ms", "three_axes_ms"


def passed(
    conv: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor], x: Tensor
) -> tuple[float, Tensor]:
    """Return the seconds of a pass forwards and backwards, and the output."""
    conv.weight.grad = None
    x = x.clone().requires_grad_()
    begun = perf_counter()
    y = forward(conv, x)
    y.sum().backward()
    return perf_counter() - begun, y.detach()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snippets", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    conv = TemporalConv(CHANNELS, PLANES, (3, 1, 1), padding=(1, 0, 0), bias=False)
    rows, found = [["threads", "snippets", "rows, ms", "three axes, ms", "ratio"]], []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for snippets in options.snippets:
            x = torch.randn(snippets, CHANNELS, FRAMES, SIDE, SIDE)
            ours, theirs = [], []
            for _ in range(REPEATS + 1):  # taking turns; the first is not counted
                ours.append(passed(conv, TemporalConv.forward, x))
                theirs.append(passed(conv, nn.Conv3d.forward, x))
            torch.testing.assert_close(ours[0][1], theirs[0][1], rtol=1e-4, atol=1e-5)
            times = [1000 * median(t for t, _ in way[1:]) for way in (ours, theirs)]
            ratio = times[1] / times[0]
            found.append(dict(zip(NAMES, (threads, snippets, *times), strict=True)))
            rows.append([str(threads), str(snippets), *(f"{t:.1f}" for t in (*times, ratio))])
    print(f"{machine()['device']}, torch {torch.__version__}, fp32")
    print(aligned(rows))
    write_report(options.json, {"passes": found})


if __name__ == "__main__":
    main()
