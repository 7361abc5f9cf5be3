"""The house: its rooms in the order that data flows, and who imports whom.

`python tests/rooms.py` prints the number of rooms, floors and arrows.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "etadlite"

ROOMS = (
    "base",
    "config",
    "data",
    "stickfigures",
    "encoders",
    "detector",
    "sampling",
    "model",
    "presets",
    "training",
    "inference",
    "evaluation",
    "memory",
    "viz",
    "prepare",
    "runs",
    "course",
    "cli",
    "__main__",
)
"""A room is a folder of the package or a file at its top."""

VISITORS = ("notebooks", "data_scripts")
"""Folders beside the package that import from it."""


def room_of(path: Path) -> str:
    """The room of a file of the package; "" for the package's own `__init__.py`."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports from, wherever in the file it does."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(f"{path}:{node.lineno} imports relatively; write etadlite.ROOM")
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, *parts = name.split(".")
            if package == "etadlite" and parts and parts[0] != "__version__":
                rooms.add(parts[0])
    return rooms


def arrows() -> dict[str, set[str]]:
    """Room -> the other rooms that it imports from; folders beside the package, too."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(path)
        found.setdefault(room, set()).update(imported_rooms(path) - {room})
    for folder in VISITORS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found.setdefault(folder, set()).update(imported_rooms(path))
    return found


def floors(found: dict[str, set[str]]) -> int:
    """The number of rooms on the longest chain of imports."""

    def height(room: str) -> int:
        return 1 + max((height(other) for other in found.get(room, ())), default=0)

    return max(map(height, found))


if __name__ == "__main__":
    house = arrows()
    for room, others in house.items():
        print(f"{room or '__init__':<14}{len(others):>3}  {' '.join(sorted(others))}")
    count = sum(map(len, house.values()))
    print(f"{len(house)} rooms, {floors(house)} floors, {count} arrows")
