"""docs/from-pomelo.md as its tests read it: its tables, by heading."""

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["GUIDE", "plain", "spans", "tables"]

GUIDE = Path(__file__).parents[1] / "docs" / "from-pomelo.md"
SPAN = re.compile(r"(`+)(.+?)\1(?!`)")


def tables(path: Path = GUIDE) -> dict[str, list[list[str]]]:
    """Return the rows of the tables by the heading above them, without the table's own head and line."""
    found: dict[str, list[list[str]]] = {}
    for heading, line in _lines(path):
        if line.startswith("|"):
            found.setdefault(heading, []).append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return {heading: rows[2:] for heading, rows in found.items()}


def spans(cell: str) -> list[str]:
    """Return what stands in a cell as code."""
    return [code.strip() for _, code in SPAN.findall(cell)]


def plain(cell: str) -> str:
    """Return a cell without the signs of code."""
    return SPAN.sub(lambda found: found[2], cell)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    heading = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        yield heading, line
