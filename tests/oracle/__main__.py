"""scripts/oracle: runs the oracle test for a given time."""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

from .faults import KINDS
from .history import RULES
from .run import Settings, Worthless, Wrong, run
from .shifts import KINDS as SHIFTS

# Exit codes besides 0. Python itself ends with 1 after an error, argparse with 2.
WRONG, WORTHLESS = 3, 4


def main() -> int:
    """Runs the test. Returns 3 after a wrong answer, 4 if too little happened to prove anything."""
    parser = argparse.ArgumentParser(
        prog="scripts/oracle",
        description="Keys change at random in a real PostgreSQL, faults are injected, clients ask"
        " without pause: no answer may be wrong. Ends at the first one that is (exit code 3), or"
        " with 4 if too little happened to prove anything.",
    )
    parser.add_argument("seconds", type=float, metavar="SECONDS", help="how long")
    parser.add_argument("--seed", type=int, help="what is changed and injected; default: another")
    parser.add_argument(
        "--build", metavar="FOLDER", help="where the programs are (default: build/release)"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        choices=KINDS,
        metavar="KIND",
        help=f"inject only this; may be repeated. There are: {', '.join(KINDS)}",
    )
    parser.add_argument(
        "--shift",
        action="append",
        default=[],
        choices=SHIFTS,
        metavar="KIND",
        help=f"change tables only in this way; may be repeated. There are: {', '.join(SHIFTS)}",
    )
    parser.add_argument(
        "--rule", action="append", choices=RULES, help="judge by this one only; may be repeated"
    )
    parser.add_argument("--story", action="store_true", help="tell all even if all went well")
    asked = parser.parse_args()
    if asked.build is not None:
        os.environ["LATCHKEY_BUILD"] = str(Path(asked.build).resolve())
    seed = random.SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    rules = frozenset(asked.rule or RULES)
    print(f"oracle: seed {seed}", flush=True)
    try:
        print(run(Settings(asked.seconds, seed, asked.fault, asked.shift, rules, asked.story)))
    except Wrong as wrong:
        print(f"{wrong}\noracle: WRONG, seed {seed}")
        return WRONG
    except Worthless as worthless:
        print(f"{worthless}\noracle: proves nothing, seed {seed}")
        return WORTHLESS
    return 0


if __name__ == "__main__":
    sys.exit(main())
