"""Make a local stand-in for the base image of `deploy/Dockerfile`.

Owns one image, `python:3.12.12-slim-bookworm`, for machines that cannot pull it: Debian
bookworm with the newest CPython 3.12 that pyenv has here, or with Debian's own 3.11 where
there is none. It is no copy of the official image: it is larger, and its label says what it
is. It also carries this machine's certificate authorities and pip settings, so that the
Dockerfile needs none; never publish it. Does not own `debian:bookworm-slim`, which must be
there (pulled, or imported by whoever started the engine).

Run as a script it prints the image's name: `python build.py [--force]`.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

IMAGE = "python:3.12.12-slim-bookworm"
LABEL = "matchday.standin"
BUILD_TIMEOUT_S = 600

_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
_UNUSED = ("test", "idlelib", "turtledemo", "ensurepip/__pycache__")
_LIBRARIES = (
    "ca-certificates libbz2-1.0 libexpat1 libffi8 liblzma5 libncursesw6 libnsl2 libreadline8 "
    "libsqlite3-0 libssl3 libuuid1 zlib1g"
)
_CHECK = "import bz2, ctypes, lzma, sqlite3, ssl, uuid, zlib, zoneinfo"
_ENDING = f"""\
ADD settings.tar /
ENV LANG=C.UTF-8 PIP_CERT=/{_CERTIFICATES} SSL_CERT_FILE=/{_CERTIFICATES}
RUN python -c '{_CHECK}' && python -m pip --version
CMD ["python3"]
"""
_FROM_PYENV = (
    f"""\
FROM debian:bookworm-slim
RUN apt-get update \\
 && apt-get install -y --no-install-recommends {_LIBRARIES} \\
 && apt-get clean && rm -rf /var/lib/apt/lists/*
ADD python.tar /usr/local/
RUN ldconfig
"""
    + _ENDING
)
_FROM_DEBIAN = (
    """\
FROM debian:bookworm-slim
RUN apt-get update \\
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip python3-venv \\
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED \\
 && ln -s /usr/bin/python3 /usr/local/bin/python && ln -s /usr/bin/pip3 /usr/local/bin/pip
"""
    + _ENDING
)


def build(context_dir: Path) -> str:
    """Build the stand-in from files it lays in an empty folder, and give its name.

    Raises:
        subprocess.CalledProcessError: The engine could build neither kind; its last words
            went to standard error.
    """
    context_dir.mkdir(parents=True, exist_ok=True)
    _write_settings(context_dir / "settings.tar")
    prefix = _pyenv_prefix()
    if prefix is not None:
        _pack_python(prefix, context_dir / "python.tar")
        # A Python built on another system may not run on bookworm; the last RUN finds out.
        if _docker_build(context_dir, _FROM_PYENV, f"CPython {prefix.name} of pyenv on Debian"):
            return IMAGE
        (context_dir / "python.tar").unlink()
        _tell(f"the pyenv Python in {prefix} does not run on Debian bookworm")
    _tell("no usable Python 3.12 here: the stand-in has Debian's Python 3.11")
    if not _docker_build(context_dir, _FROM_DEBIAN, "Debian's CPython 3.11"):
        raise subprocess.CalledProcessError(1, ["docker", "build", "-t", IMAGE])
    return IMAGE


def is_built() -> bool:
    """Tell whether an image of that name is there, be it a stand-in or the real one."""
    found = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False)
    return found.returncode == 0


def _docker_build(context_dir: Path, dockerfile: str, kind: str) -> bool:
    (context_dir / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    command = ["docker", "build", "-q", "-t", IMAGE, "--label", f"{LABEL}={kind}", str(context_dir)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S
    )
    if done.returncode:
        _tell("\n".join(done.stderr.splitlines()[-20:]))
    return done.returncode == 0


def _pyenv_prefix() -> Path | None:
    """Give the newest CPython 3.12 under pyenv's root, or None."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [path for path in root.glob("versions/3.12.*") if (path / "bin/python3.12").is_file()]
    newest = max(found, key=lambda path: int(re.sub(r"\D.*", "", path.name[5:]) or 0), default=None)
    return None if newest is None else newest.resolve()


def _pack_python(prefix: Path, target: Path) -> None:
    """Pack an installed CPython as it should lie in /usr/local, with pip and nothing else."""
    library = "lib/python3.12/"
    keeps_site = re.compile(library + r"site-packages(/pip.*)?$")

    def keep(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        inside = entry.name.removeprefix(library)
        is_unused = (
            entry.name.endswith((".a", "__pycache__"))
            or inside.startswith((*_UNUSED, "config-3.12"))
            or (inside.startswith("site-packages") and not keeps_site.match(entry.name))
        )
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        return None if is_unused else entry

    with tarfile.open(target, "w") as packed:
        packed.add(prefix / "lib", "lib", filter=keep)
        for name in ("python3.12", "python3", "python"):
            packed.add(prefix / "bin" / name, f"bin/{name}", filter=keep)
        script = b"#!/usr/local/bin/python\nfrom pip._internal.cli.main import main\n\nmain()\n"
        for name in ("pip", "pip3"):
            _add(packed, f"bin/{name}", script, mode=0o755)


def _write_settings(target: Path) -> None:
    """Pack this machine's certificate authorities and pip settings."""
    with tarfile.open(target, "w") as packed:
        for place in (os.environ.get("SSL_CERT_FILE", ""), f"/{_CERTIFICATES}"):
            if Path(place).is_file():
                _add(packed, _CERTIFICATES, Path(place).read_bytes())
                break
        rows = "".join(f"{name} = {value}\n" for name, value in _pip_settings().items())
        _add(packed, "etc/pip.conf", f"[global]\n{rows}".encode())


def _pip_settings() -> dict[str, str]:
    """Give what pip is told on this machine about where packages come from."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found = re.findall(r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", listed.stdout, re.MULTILINE)
    return {name: value for name, value in found if name in _PIP_SETTINGS}


def _add(packed: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    packed.addfile(entry, io.BytesIO(content))


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _main(arguments: list[str]) -> None:
    if is_built() and "--force" not in arguments:
        print(IMAGE)
        return
    context_dir = Path(tempfile.mkdtemp(prefix="matchday-python-"))
    try:
        print(build(context_dir))
    finally:
        shutil.rmtree(context_dir)


if __name__ == "__main__":
    _main(sys.argv[1:])
