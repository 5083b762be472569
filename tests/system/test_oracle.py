"""The promise of freshness under constant changes and faults: one run of scripts/oracle.

tests/oracle describes it. It prints its seed at the start and with every failure.
"""

from __future__ import annotations

import os

from harness import child
from harness.programs import REPOSITORY, build_folder

# A minute contains every kind of fault. Sanitizers look for other errors, and are slow.
SECONDS = 60 if build_folder().name == "release" else 20
LIMIT_S = 10 * SECONDS


def test_no_answer_is_wrong_whatever_happens() -> None:
    command = [str(REPOSITORY / "scripts" / "oracle"), str(SECONDS), "--build", str(build_folder())]
    if "LATCHKEY_SEED" in os.environ:
        command += ["--seed", os.environ["LATCHKEY_SEED"]]
    done = child.run(command, timeout_s=LIMIT_S)
    print(done.stdout)
    assert done.exit_code == 0, f"{done.stdout}\n{done.stderr}"
