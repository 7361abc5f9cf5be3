"""`python -m etadlite` and `torchrun -m etadlite` are the `etadlite` command."""

from etadlite.cli import main

main()
