"""Find the programs that the comparisons need and get those that are missing.

Run it as `python benchmarks/peers/install.py`; it prints one line per program and always
exits with 0, because a comparison leaves out what is not there and says so. Owns where the
peers come from: Telegraf is built by `go install` from its Go module, with the plugins used
here only (its `custom` build tag); Kafka Connect and its MongoDB sink are what Maven finds for
their released artefacts. Versions are pinned; Go and Maven check the digests. Does not own the
servers (`tests/servers/install.py`), whose cache `.servers/` it shares.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from servers import install as servers_install

TELEGRAF_VERSION: Final = "1.39.3"
TELEGRAF_MODULE: Final = "github.com/influxdata/telegraf"
TELEGRAF_PLUGINS: Final = (
    "inputs.kafka_consumer",
    "inputs.mqtt_consumer",
    "outputs.kafka",
    "outputs.mongodb",
    "parsers.json",
    "serializers.json",
)
CONNECT_VERSION: Final = servers_install.KAFKA_VERSION
MONGO_SINK_VERSION: Final = "2.0.1"
STEP_TIMEOUT_S: Final = 900.0

_RUN_INSTALL: Final = "run python benchmarks/peers/install.py"


def main() -> int:
    """Get what is missing and print a line per program; safe to call again and again."""
    servers_install.CACHE_DIR.mkdir(exist_ok=True)
    for name, get in {"telegraf": _get_telegraf, "connect": _get_connect}.items():
        lack = missing().get(name)
        if lack is None:
            print(f"{name:<10} found: {_location(name)}", flush=True)
            continue
        print(f"{name:<10} missing: {lack}; trying to get it", file=sys.stderr, flush=True)
        problem = get()
        found = f"installed: {_location(name)}" if problem is None else f"missing: {problem}"
        print(f"{name:<10} {found}", flush=True)
    return 0


def missing() -> dict[str, str]:
    """Give the peers that cannot run here, each with why and how to get it."""
    lacks: dict[str, str] = {}
    if find_telegraf() is None:
        lacks["telegraf"] = f"no Telegraf {TELEGRAF_VERSION}: {_RUN_INSTALL} (needs Go)"
    if servers_install.find_java() is None:
        lacks["connect"] = f"no Java {servers_install.JAVA_VERSION_MIN} or newer"
    elif find_connect_jars() is None:
        lacks["connect"] = f"no Kafka Connect {CONNECT_VERSION}: {_RUN_INSTALL} (needs Maven)"
    return lacks


def find_telegraf() -> Path | None:
    """Give Telegraf's program: the cached one only, since another may lack plugins."""
    program = _telegraf_home() / "telegraf"
    return program if program.is_file() else None


def find_connect_jars() -> Path | None:
    """Give the folder with the jars of Kafka Connect and of its MongoDB sink."""
    folder = _connect_home()
    return folder if folder.is_dir() else None


def versions() -> str:
    """Give what is here, for the description of a run."""
    found = {
        f"Telegraf {TELEGRAF_VERSION}": find_telegraf(),
        f"Kafka Connect {CONNECT_VERSION} with mongo-kafka-connect {MONGO_SINK_VERSION}": (
            find_connect_jars()
        ),
    }
    return ", ".join(name for name, place in found.items() if place is not None) or "none"


def _location(name: str) -> Path | None:
    return find_telegraf() if name == "telegraf" else find_connect_jars()


def _telegraf_home() -> Path:
    return servers_install.CACHE_DIR / f"telegraf-{TELEGRAF_VERSION}"


def _connect_home() -> Path:
    name = f"connect-{CONNECT_VERSION}-mongo-{MONGO_SINK_VERSION}"
    return servers_install.CACHE_DIR / name


def _get_telegraf() -> str | None:
    """Build Telegraf; gives what went wrong, None when all went well."""
    if shutil.which("go") is None:
        return "no Go to build it with: install the package 'golang' (the version it names)"
    with servers_install.workshop() as folder:
        home = folder / "home"
        version_flag = f"-X {TELEGRAF_MODULE}/internal.Version={TELEGRAF_VERSION}"
        problem = servers_install.run(
            [
                *("go", "install", "-trimpath"),
                f"-tags=custom,{','.join(TELEGRAF_PLUGINS)}",
                f"-ldflags=-s -w {version_flag}",
                f"{TELEGRAF_MODULE}/cmd/telegraf@v{TELEGRAF_VERSION}",
            ],
            {**os.environ, "GOBIN": str(home), "CGO_ENABLED": "0"},
            timeout_s=STEP_TIMEOUT_S,
        )
        if problem is None:
            servers_install.put(home, _telegraf_home())
        return problem


def _get_connect() -> str | None:
    """Let Maven collect the jars; gives what went wrong, None when all went well."""
    if shutil.which("mvn") is None:
        return "no Maven to get it with: install the package 'maven'"
    return servers_install.collect_jars(
        [
            f"org.apache.kafka:connect-runtime:{CONNECT_VERSION}",
            f"org.mongodb.kafka:mongo-kafka-connect:{MONGO_SINK_VERSION}",
        ],
        place=_connect_home(),
    )


if __name__ == "__main__":
    sys.exit(main())
