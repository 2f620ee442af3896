"""The genuine programs inside the stand-ins: Kafka's, ZooKeeper's, mongod, Mongo Express.

Owns where they come from and their folders in `.servers/standins`, made once and then kept.
mongod is the one that `servers.install` fetches. Does not own the images. Versions are pinned;
Maven checks every jar's checksum, npm every package's.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from containers.commands import run
from matchday.errors import UnavailableError
from servers import install

PROGRAMS_DIR: Final = install.CACHE_DIR / "standins"
STEP_TIMEOUT_S: Final = 600.0

_JARS: Final[Mapping[str, Sequence[str]]] = {
    "kafka-4.1.0": (
        "org.apache.kafka:kafka_2.13:4.1.0",
        "org.apache.kafka:kafka-tools:4.1.0",
        "org.slf4j:slf4j-simple:1.7.36",
    ),
    "kafka-3.9.1": (
        "org.apache.kafka:kafka_2.13:3.9.1",
        "org.apache.kafka:kafka-tools:3.9.1",
        "org.slf4j:slf4j-simple:1.7.36",
    ),
    "zookeeper-3.9.3": (
        "org.apache.zookeeper:zookeeper:3.9.3",
        "io.dropwizard.metrics:metrics-core:4.1.12.1",
        "org.xerial.snappy:snappy-java:1.1.10.5",
        "org.slf4j:slf4j-simple:1.7.36",
    ),
}
# A second binding would take the log away from slf4j-simple.
_UNWANTED_JARS: Final = "slf4j-reload4j,logback-classic,logback-core"

_MONGO_EXPRESS: Final = "mongo-express-1.0.2"
# What its package.json takes from places that npm does not read, and one package whose later
# releases it cannot use.
_NPM_PINNED: Final = {
    "bootstrap-paginator": "1.0.2",
    "html-entities": "2.3.3",
    "mongodb-query-parser": "2.4.6",
    "renderjson": "1.4.0",
}
_NPM_UNUSED: Final = ("nyc",)
_NPM_BUILD: Final = (
    *("@babel/core", "@babel/preset-env", "assets-webpack-plugin", "babel-loader", "bootstrap"),
    *("clean-webpack-plugin", "codemirror", "copy-webpack-plugin", "jquery", "renderjson"),
    *("webpack", "webpack-cli"),
)
_NPM_SHIPPED: Final = (
    *("app.js", "build", "build-assets.json", "config.default.js", "lib", "LICENSE.md"),
    *("node_modules", "package.json", "public"),
)


def kafka() -> Path:
    """Give the folder with the jars of Kafka 4.1.0 and its tools.

    Raises:
        UnavailableError: They could not be had; says why. So with all functions here.
    """
    return _jars("kafka-4.1.0")


def kafka_with_zookeeper() -> Path:
    """Give the folder with the jars of Kafka 3.9.1, the last line with ZooKeeper."""
    return _jars("kafka-3.9.1")


def zookeeper() -> Path:
    """Give the folder with the jars of ZooKeeper 3.9.3."""
    return _jars("zookeeper-3.9.3")


def mongod() -> Path:
    """Give the folder with the mongod that the tests on real servers use."""
    folder = install.CACHE_DIR / f"mongod-{install.MONGOD_VERSION}"
    if not folder.is_dir():
        install.main()
    if not folder.is_dir():
        raise UnavailableError(f"getting mongod: {install.missing().get('mongo', 'only on PATH')}")
    return folder


def mongo_express() -> Path:
    """Give the folder with Mongo Express 1.0.2, its packages and its built pages."""
    return _kept(_MONGO_EXPRESS, _make_mongo_express)


def _jars(name: str) -> Path:
    return _kept(name, lambda folder: _make_jars(folder, _JARS[name]))


def _make_jars(folder: Path, wanted: Sequence[str]) -> Path:
    if shutil.which("mvn") is None:
        raise UnavailableError("getting jars: no Maven: install the package 'maven'")
    rows = []
    for coordinates in wanted:
        group, artifact, version = coordinates.split(":")
        rows.append(
            f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
            f"<version>{version}</version></dependency>"
        )
    (folder / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>matchday</groupId><artifactId>standin</artifactId><version>1</version>"
        f"<packaging>pom</packaging><dependencies>{''.join(rows)}</dependencies></project>",
        encoding="utf-8",
    )
    _step(
        ["mvn", "-q", "-B", "--strict-checksums"],
        f"{install.MAVEN_PLUGIN}:copy-dependencies",
        f"-DoutputDirectory={folder / 'jars'}",
        "-DincludeScope=runtime",
        f"-DexcludeArtifactIds={_UNWANTED_JARS}",
        folder=folder,
    )
    return folder / "jars"


def _make_mongo_express(folder: Path) -> Path:
    """Build the release as its own image does, with npm in place of Yarn."""
    if shutil.which("npm") is None:
        raise UnavailableError("getting Mongo Express: no npm: install Node.js 16 or newer")
    quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
    version = _MONGO_EXPRESS.rpartition("-")[2]
    _step(["npm", "pack", *quiet, f"mongo-express@{version}"], folder=folder)
    _step(["tar", "-xzf", f"{_MONGO_EXPRESS}.tgz"], folder=folder)
    source = folder / "package"
    described = json.loads((source / "package.json").read_text(encoding="utf-8"))
    needed = described["dependencies"]
    building = {name: described["devDependencies"][name] for name in _NPM_BUILD}
    for group in (needed, building):
        group.update({name: at for name, at in _NPM_PINNED.items() if name in group})
    for name in _NPM_UNUSED:
        needed.pop(name, None)
    kept = {key: described[key] for key in ("name", "version", "type", "license", "browserslist")}
    changed = {**kept, "dependencies": needed, "devDependencies": building}
    (source / "package.json").write_text(json.dumps(changed, indent=2), encoding="utf-8")
    _step(["npm", "install", *quiet, "--ignore-scripts"], folder=source)
    _step(["node_modules/.bin/webpack"], folder=source)
    _step(["npm", "prune", *quiet, "--ignore-scripts", "--omit=dev"], folder=source)
    shipped = folder / "shipped"
    shipped.mkdir()
    for name in _NPM_SHIPPED:
        (source / name).rename(shipped / name)
    return shipped


def _kept(name: str, make: Callable[[Path], Path]) -> Path:
    """Give a finished folder, made beside its place and moved there in one step."""
    place = PROGRAMS_DIR / name
    if not place.is_dir():
        with _workshop() as folder:
            made = make(folder)
            try:
                made.rename(place)
            except OSError:
                # Another run was first, and what it made is the same.
                if not place.is_dir():
                    raise
    return place


@contextmanager
def _workshop() -> Iterator[Path]:
    PROGRAMS_DIR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=PROGRAMS_DIR) as folder:
        yield Path(folder)


def _step(argv: Sequence[str], *more: str, folder: Path) -> None:
    """Run one command in a folder.

    Raises:
        UnavailableError: It ended with another code than 0; with the last it said.
    """
    done = run(
        [*argv, *more],
        cwd=folder,
        environment={**os.environ, "NODE_ENV": "production" if "webpack" in argv[0] else ""},
        timeout_s=STEP_TIMEOUT_S,
        is_checked=False,
    )
    if done.returncode != 0:
        said = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        raise UnavailableError(
            f"running {' '.join(argv[:2])}: exit code {done.returncode}: {'; '.join(said[-3:])}"
        )
