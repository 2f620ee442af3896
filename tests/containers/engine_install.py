"""The packages of a Docker engine with Compose and Buildx, on Debian.

Owns which versions will do, and getting them through apt: from the next release where this
one's are too old, without anything else moving there. Nothing is started. Does not own the
engine's life (`engine`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from containers.commands import run
from matchday.errors import UnavailableError

# `volume.subpath`, which the secrets need, came with these.
ENGINE_VERSION_MIN: Final = (26, 0)
COMPOSE_VERSION_MIN: Final = (2, 26)
INSTALL_TIMEOUT_S: Final = 600.0
ANSWER_TIMEOUT_S: Final = 15.0

_PACKAGES: Final = ("docker.io", "docker-cli", "docker-compose", "docker-buildx")
_OTHER_PACKAGES: Final = ("iptables", "iproute2", "mmdebstrap")
# Debian releases whose own engine is too old, and the release whose packages run there: they
# ask for nothing newer than the older release has.
_NEWER_RELEASE: Final[Mapping[str, str]] = {"bookworm": "trixie"}
_POLICY_PATH: Final = Path("/usr/sbin/policy-rc.d")


def is_installed() -> bool:
    """Tell whether dockerd, Compose and Buildx are installed and new enough."""
    dockerd = said(["dockerd", "--version"])
    compose = said(["docker", "compose", "version", "--short"])
    return (
        version_of(dockerd) >= ENGINE_VERSION_MIN
        and version_of(compose) >= COMPOSE_VERSION_MIN
        and bool(said(["docker", "buildx", "version"]))
        and all(shutil.which(program) for program in ("iptables", "ip"))
    )


def install() -> None:
    """Install the packages, from the next release where this one's are too old.

    Raises:
        UnavailableError: This is not Debian, or apt could not; with the last it said.
    """
    release = _os_release()
    if release.get("ID") != "debian" or shutil.which("apt-get") is None:
        raise UnavailableError(
            f"installing an engine: {release.get('PRETTY_NAME', 'this system')} is not Debian; "
            f"install Docker Engine {dotted(ENGINE_VERSION_MIN)} with Compose and Buildx"
        )
    newer = _NEWER_RELEASE.get(release.get("VERSION_CODENAME", ""))
    wanted = [f"{name}/{newer}" if newer else name for name in _PACKAGES]
    with _services_stay_off(), _release_known(newer):
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", *wanted, *_OTHER_PACKAGES)


@contextmanager
def _release_known(release: str | None) -> Iterator[None]:
    """Let apt see another release for a while, at a priority at which nothing moves there."""
    if release is None:
        yield
        return
    shown = said(
        ["apt-config", "shell", "S", "Dir::Etc::sourceparts/d", "P", "Dir::Etc::preferencesparts/d"]
    )
    folders = dict(re.findall(r"^(\w)='(.*)'$", shown, re.MULTILINE))
    listed = said(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    mirror = next((line for line in listed.split() if "security" not in line), None)
    if mirror is None or set(folders) != {"S", "P"}:
        raise UnavailableError("installing an engine: apt names no mirror")
    source = Path(folders["S"]) / "matchday-engine.sources"
    preference = Path(folders["P"]) / "matchday-engine"
    signed = [
        line
        for path in sorted(Path(folders["S"]).glob("*.sources"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.lower().startswith("signed-by:")
    ][:1]
    rows = ["Types: deb", f"URIs: {mirror}", f"Suites: {release}", "Components: main", *signed]
    try:
        source.write_text("\n".join(rows) + "\n", encoding="utf-8")
        pin = f"Package: *\nPin: release n={release}\nPin-Priority: 50\n"
        preference.write_text(pin, encoding="utf-8")
        yield
    finally:
        source.unlink(missing_ok=True)
        preference.unlink(missing_ok=True)


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Keep dpkg from starting an engine of its own on the usual folder."""
    if _POLICY_PATH.exists():
        yield
        return
    _POLICY_PATH.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    _POLICY_PATH.chmod(0o755)
    try:
        yield
    finally:
        _POLICY_PATH.unlink(missing_ok=True)


def _apt(*arguments: str) -> None:
    done = run(
        ["apt-get", "-qq", *arguments],
        environment={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        timeout_s=INSTALL_TIMEOUT_S,
        is_checked=False,
    )
    if done.returncode != 0:
        told = "; ".join(done.stderr.strip().splitlines()[-3:])
        raise UnavailableError(f"installing an engine: apt-get {arguments[0]}: {told}")


def _os_release() -> dict[str, str]:
    with suppress(OSError):
        text = Path("/etc/os-release").read_text(encoding="utf-8")
        return {name: value.strip('"') for name, value in re.findall(r"^(\w+)=(.*)$", text, re.M)}
    return {}


def said(argv: Sequence[str]) -> str:
    """Give what a command printed; nothing when it went wrong."""
    return printed(argv, timeout_s=ANSWER_TIMEOUT_S) or ""


def printed(argv: Sequence[str], *, timeout_s: float) -> str | None:
    """Give what a command printed; None when it went wrong or is not there."""
    try:
        done = run(argv, timeout_s=timeout_s, is_checked=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def version_of(text: str) -> tuple[int, int]:
    """Give the first two numbers of a version in a text; zeros where there is none."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def dotted(version: tuple[int, int]) -> str:
    """Give a version as people write it."""
    return ".".join(map(str, version))
