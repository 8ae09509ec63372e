"""Namespaces of the run's own, so that it can break networks and disks without touching the machine's.

The program starts itself once more inside fresh network, mount and process namespaces. Everything it makes
there (links, addresses, named namespaces, mounts) and everyone it starts is gone with the last process, which
the kernel sees to, also when the run is killed. Without root a user namespace is tried. Where the machine
allows none of this, the run goes on without, and says what is left out and why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

_WITHOUT: Final = "VOICEBUS_CHAOS_WITHOUT"
"""Set inside: why there are no namespaces, or nothing."""
_UNSHARE: Final = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_INSTALL: Final = ("apt-get", "install", "--yes", "--no-install-recommends", "iproute2")
INSTALL_S: Final = 120


def enter(arguments: Sequence[str], *, install: bool) -> str:
    """Start anew inside, and never return; or return why that is not possible. Inside: an empty string.

    `install`: iproute2 is installed where it is missing and we may.
    """
    if (without := os.environ.get(_WITHOUT)) is not None:
        return without
    without = _why_not(install=install)
    if not without:
        command = [*_command(), sys.executable, "-m", "tests.chaos", *arguments]
        sys.stdout.flush()
        os.execvpe(command[0], command, {**os.environ, _WITHOUT: ""})  # noqa: S606 - unshare, and ourselves
    return without


def set_up() -> None:
    """Inside: bring loopback up, and have a place for named namespaces that nobody else sees."""
    run("ip", "link", "set", "lo", "up")
    run("mount", "-t", "tmpfs", "-o", "size=1m", "voicebus-chaos", "/run")


def run(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)


def succeeds(*command: str, timeout_s: float = 30) -> bool:
    """Whether a command exists and succeeds."""
    try:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _command() -> list[str]:
    return ["unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), *_UNSHARE]


def _why_not(*, install: bool) -> str:
    if sys.platform != "linux":
        return "only Linux has namespaces"
    if install and os.geteuid() == 0 and shutil.which("ip") is None:
        succeeds("apt-get", "update", timeout_s=INSTALL_S)
        succeeds(*_INSTALL, timeout_s=INSTALL_S)
    for tool, package in (("ip", "iproute2"), ("tc", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(tool) is None:
            return f"no `{tool}` here: install {package}"
    if not succeeds(*_command(), "sh", "-c", "ip link set lo up && mount -t tmpfs voicebus-chaos /run"):
        return "this machine allows us no namespaces"
    return ""
