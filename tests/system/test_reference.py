"""The documented options, settings and units agree with the programs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from harness import child
from harness.programs import REPOSITORY, check_config, program

MAN = REPOSITORY / "docs" / "man"
SYSTEMD = REPOSITORY / "systemd"
OPTION = re.compile(r"--[a-z][a-z-]+")


def options_of_help(*command: str) -> set[str]:
    told = child.run([str(program(command[0])), *command[1:], "--help"]).expect(0).stdout
    return set(OPTION.findall(told)) - {"--help"}


def section(page: str, title: str) -> str:
    found = re.search(rf"^# {title}\n(.*?)(?=^# |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


# ---- manual pages


def test_latchkeyd_8_names_each_option() -> None:
    page = (MAN / "latchkeyd.8.scd").read_text()
    assert set(OPTION.findall(section(page, "OPTIONS"))) - {"--help"} == options_of_help("latchkeyd")


def test_latchkey_1_names_each_command_and_option() -> None:
    page = (MAN / "latchkey.1.scd").read_text()
    entries = re.split(r"^\*([a-z]+)\*", section(page, "COMMANDS"), flags=re.MULTILINE)[1:]
    documented = dict(zip(entries[::2], entries[1::2], strict=True))
    told = child.run([str(program("latchkey")), "--help"]).expect(0).stdout
    commands = set(re.findall(r"^  ([a-z]+) ", told.split("Subcommands:")[1], re.MULTILINE))
    assert set(documented) == commands
    for command, text in documented.items():
        assert set(OPTION.findall(text)) == options_of_help("latchkey", command), command
    common = set(OPTION.findall(section(page, "OPTIONS"))) - {"--help"}
    assert common == options_of_help("latchkey")


def test_latchkey_bench_1_names_each_command_and_option() -> None:
    page = (MAN / "latchkey-bench.1.scd").read_text()
    told = child.run([str(program("latchkey-bench")), "--help"]).expect(0).stdout
    for command in re.findall(r"^  ([a-z]+) ", told.split("Subcommands:")[1], re.MULTILINE):
        documented = set(OPTION.findall(section(page, command.upper())))
        options = options_of_help("latchkey-bench", command)
        assert options == documented, command


def test_readme_names_each_command() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    told = child.run([str(program("latchkey")), "--help"]).expect(0).stdout
    for command in re.findall(r"^  ([a-z]+) ", told.split("Subcommands:")[1], re.MULTILINE):
        assert f"`latchkey {command}" in readme, command


# ---- settings


def documented_settings() -> dict[str, set[str]]:
    """The settings of the reference by section, commented out or not."""
    found: dict[str, set[str]] = defaultdict(set)
    here = ""
    for line in (REPOSITORY / "docs" / "latchkey.toml").read_text().splitlines():
        if header := re.match(r"(\[+[a-z_]+\]+)$", line):
            here = header[1]
        elif setting := re.match(r"#?([a-z_]+) = ", line):
            found[here].add(setting[1])
    return found


def known_settings(header: str) -> set[str]:
    """The settings that the daemon's error message lists for a misspelt one."""
    needed = {
        "[[database]]": 'name = "a"\nconninfo = "host=/x"\n',
        "[[source]]": 'name = "a"\npreset = "external_credentials"\n',
        "[[allow]]": "uid = 1\n",
    }.get(header, "")
    told = check_config(f"{header}\n{needed}zzzzzzzzzzzzzzzz = 1\n").expect(2).stderr
    known = re.search(r"Known here: ([a-z_, ]+)\.", told)
    assert known, told
    return set(known[1].split(", "))


@pytest.mark.parametrize("header", sorted(documented_settings()))
def test_each_setting_is_explained_and_each_that_is_explained_is_one(header: str) -> None:
    documented = documented_settings()[header]
    known = known_settings(header)
    if header == "[[allow]]":  # one comment names these
        documented |= {"user", "gid", "group"}
    assert documented == known


def test_each_section_is_explained() -> None:
    told = check_config("zzzzzzzzzzzzzzzz = 1\n").expect(2).stderr
    known = re.search(r"Known here: ([a-z_, ]+)\.", told)
    assert known
    assert {header.strip("[]") for header in documented_settings()} == set(known[1].split(", "))


# ---- units


def exposure(unit: Path) -> float:
    """systemd's own exposure level: 0 is safe, 10 is not."""
    told = child.run(["systemd-analyze", "security", "--offline=true", str(unit)]).expect(0).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found, told
    return float(found[1])


def test_the_service_is_exposed_as_little_as_promised(tmp_path: Path) -> None:
    unit = Path(shutil.copy(SYSTEMD / "latchkeyd.service", tmp_path))
    assert exposure(unit) <= 1.5
    dropins = tmp_path / "latchkeyd.service.d"
    dropins.mkdir()
    shutil.copy(SYSTEMD / "local-database.conf", dropins)
    assert exposure(unit) <= 0.8


def test_units_say_what_the_design_asks_for() -> None:
    """No test can wait for these: no start limit ends the restarts, and callers keep their uids."""
    service = (SYSTEMD / "latchkeyd.service").read_text()
    socket = (SYSTEMD / "latchkeyd.socket").read_text()
    for line in ("Type=notify", "WatchdogSec=10", "StartLimitIntervalSec=0", "Restart=always"):
        assert f"\n{line}\n" in service
    assert "\nPrivateUsers=" not in service
    for line in ("TriggerLimitIntervalSec=0", "FlushPending=no", "RemoveOnStop=no"):
        assert f"\n{line}\n" in socket
    socket_path = re.search(r"^ListenStream=(.*)$", socket, re.MULTILINE)
    assert socket_path
    settings = (REPOSITORY / "docs" / "latchkey.toml").read_text()
    assert f'#socket = "{socket_path[1]}"' in settings, "the program's default is the unit's path"


def test_every_unknown_directive_would_be_found(tmp_path: Path) -> None:
    """systemd ignores unknown directives: a misspelt line of the sandbox would have no effect."""
    for name in ("latchkeyd.service", "latchkeyd.socket"):
        text = (SYSTEMD / name).read_text().replace("/usr/bin/latchkeyd", "/bin/true")
        (tmp_path / name).write_text(text.replace("Documentation=", "#Documentation="))
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert ours == []


# ---- promises


def test_each_test_that_security_md_names_is_there() -> None:
    """Each promise names its proof: a file, a test in pytest, or a suite in C++."""
    page = (REPOSITORY / "docs" / "security.md").read_text()
    python = "\n".join(
        f"{path.name} {path.read_text()}" for path in (REPOSITORY / "tests").rglob("*.py")
    )
    suites = "\n".join(path.read_text() for path in (REPOSITORY / "tests" / "unit").rglob("*.cpp"))
    table = page.split("## What Latchkey protects")[1].split("## Owners of tables")[0]
    rows = [line.split("|")[-2] for line in table.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert len(named) > 30
    for name in named:
        if name.endswith(".py"):
            assert re.search(rf"(?m)^{re.escape(name)} ", python), name
        elif name.startswith("test_"):
            assert f"def {name}(" in python, name
        elif "/" in name:
            assert (REPOSITORY / name).exists(), name
        else:
            suite, _, test = name.partition(".")
            assert re.search(rf"TEST\w*\({suite}, {test}", suites), name
