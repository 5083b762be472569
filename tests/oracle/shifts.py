"""All tables with a changing definition, and the names of the kinds of change."""

from __future__ import annotations

from installation import Installation

from .mixed import Mixed
from .parted import Parted
from .shifting import Shifting
from .twins import Twins

_COUNTS: dict[type[Shifting], int] = {Mixed: 40, Parted: 24, Twins: 20}
BREAKING = frozenset(name for table in _COUNTS for name, kind in table.kinds.items() if kind.breaks)
KINDS = tuple(name for table in _COUNTS for name in table.kinds)


def create(site: Installation, seed: str, first_index: int) -> list[Shifting]:
    """All of these tables, empty, in the site's database and configuration."""
    made: list[Shifting] = []
    for kind, count in _COUNTS.items():
        made.append(kind(site, seed, count, first_index + sum(len(table.keys) for table in made)))
        made[-1].configure(site)
    return made
