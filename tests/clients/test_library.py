"""liblatchkey from the Debian packages, used outside of this tree."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.folder import TemporaryFolder
from harness.programs import REPOSITORY, build_folder
from harness.wait import scaled
from served import Here

EXAMPLES = REPOSITORY / "client/c/examples"
C = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
CXX17 = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
CXX20 = ["g++", "-std=c++20", "-Wall", "-Wextra", "-Werror"]


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Run a command, which must succeed; returns its standard output."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=scaled(300),
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The content of the library's packages, unpacked outside of /."""
    folder = TemporaryFolder()
    run("cpack", "-G", "DEB", "-B", folder.path, cwd=build_folder())
    made = folder.path / "root"
    for package in ("liblatchkey1", "liblatchkey-dev"):
        (found,) = folder.path.glob(f"{package}_*.deb")
        run("dpkg-deb", "-x", found, made)
    yield made
    folder.close()


def library(root: Path) -> Path:
    (found,) = root.glob("usr/lib/*/liblatchkey.so.1")
    return found


def pkg_config(root: Path, *wanted: str) -> list[str]:
    """The output of pkg-config for the unpacked library."""
    folder = library(root).parent / "pkgconfig"
    return run("pkg-config", *wanted, "latchkey", PKG_CONFIG_PATH=str(folder)).split()


def asked(program: Path, here: Here, keys: Sequence[str], root: Path) -> list[str]:
    """The output of an example for some keys."""
    done = subprocess.run(
        [str(program)],
        input="".join(f"{key}\n" for key in keys),
        env={"LATCHKEY_SOCKET": str(here.keys.socket), "LD_LIBRARY_PATH": str(library(root).parent)},
        capture_output=True,
        text=True,
        timeout=scaled(60),
    )
    assert done.returncode in (0, 1) and not done.stderr, done
    return done.stdout.splitlines()


KEYS = ["key_valid", "no_such_key", "key_revoked", "key_reader"]


def expected(example: str, here: Here) -> list[str]:
    """The expected output of the example for KEYS, or for the first of them."""
    come_in = f"in, as {here.keys.user}"
    return {
        "verify.c": [come_in],
        "verify.cpp": [come_in, "out: unknown", "out: revoked", "out: insufficient_scope"],
        "poll_loop.c": ["valid", "unknown", "revoked", "valid"],
        "asio_coroutine.cpp": ["valid", "unknown", "revoked", "valid"],
    }[example]


@pytest.mark.parametrize(
    ("compiler", "example"),
    [(C, "verify.c"), (C, "poll_loop.c"), (CXX17, "verify.cpp"), (CXX20, "asio_coroutine.cpp")],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("linking", ["shared", "static"])
def test_examples_build_by_pkg_config(
    here: Here, root: Path, scratch: Path, compiler: list[str], example: str, linking: str
) -> None:
    program = scratch / f"{example}.{linking}"
    flags = pkg_config(root, "--cflags", "--libs")
    if linking == "static":
        flags = [f"-l:lib{flag[2:]}.a" if flag == "-llatchkey" else flag for flag in flags]
    run(*compiler, EXAMPLES / example, *flags, "-o", program)
    assert ("liblatchkey.so.1" in run("objdump", "-p", program)) == (linking == "shared")
    assert asked(program, here, KEYS, root) == expected(example, here)


def test_examples_build_by_find_package(here: Here, root: Path, scratch: Path) -> None:
    source = scratch / "cmake"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(
        f"""
        cmake_minimum_required(VERSION 3.25)
        project(stranger LANGUAGES C CXX)
        find_package(latchkey 0.1 REQUIRED)
        add_executable(in_c {EXAMPLES}/verify.c)
        target_link_libraries(in_c PRIVATE latchkey::shared)
        add_executable(in_cpp {EXAMPLES}/verify.cpp)
        target_link_libraries(in_cpp PRIVATE latchkey::static)
        """
    )
    build = scratch / "cmake-build"
    run("cmake", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={root}/usr")
    run("cmake", "--build", build)
    assert asked(build / "in_c", here, KEYS, root) == expected("verify.c", here)
    assert asked(build / "in_cpp", here, KEYS, root) == expected("verify.cpp", here)


def test_it_exports_what_its_header_declares_and_nothing_else(root: Path) -> None:
    header = (root / "usr/include/latchkey/client.h").read_text()
    declared = set(re.findall(r"^[a-z][\w *]*?\b(latchkey_\w+)\(", header, re.MULTILINE))
    exported = run("nm", "-D", "--defined-only", library(root)).split("\n")
    functions = {line.split()[2] for line in exported if " T " in line}
    assert functions == {f"{name}@@LATCHKEY_1" for name in declared}
    assert len(declared) > 20
    others = [line.split()[2] for line in exported if line and " T " not in line]
    assert others == ["LATCHKEY_1"]


def test_it_needs_nothing_but_libc(root: Path) -> None:
    dynamic = run("objdump", "-p", library(root))
    assert re.findall(r"NEEDED +(\S+)", dynamic) == ["libc.so.6"]
    assert re.findall(r"SONAME +(\S+)", dynamic) == ["liblatchkey.so.1"]
