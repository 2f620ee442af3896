"""Which images `compose.yaml` needs from elsewhere, and building those this machine lacks.

Owns their names and tags, in one table, and the Debian base they are made on. An image that is
there already is never touched unless it is a stand-in (label `matchday.standin`) and a new one
is asked for; nothing is ever pulled, for pulling is the caller's choice. Does not own the
programs inside (`programs`), the Python base (`python/build.py`) or our own image.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from containers.commands import CLOCK, run
from containers.standins import programs
from containers.standins.python import build as python_base
from matchday.errors import UnavailableError

HERE: Final = Path(__file__).resolve().parent
LABEL: Final = "matchday.standin"
BASE_IMAGE: Final = "debian:bookworm-slim"
BASE_SUITE: Final = "bookworm"
BUILD_TIMEOUT_S: Final = 600.0

_SHARED: Final[Mapping[str, Callable[[], Path]]] = {"shared": lambda: HERE / "kafka-shared"}


@dataclass(frozen=True)
class StandIn:
    """One image that can be made here.

    Attributes:
        image: Its name and tag, exactly as `compose.yaml` has them.
        folder: Where its Dockerfile is, in this folder.
        contexts: What else the Dockerfile copies from: a name, and how to get the folder.
    """

    image: str
    folder: str
    contexts: Mapping[str, Callable[[], Path]] = field(default_factory=dict)


STAND_INS: Final = (
    StandIn("eclipse-mosquitto:2.0.22", "mosquitto"),
    StandIn("mongo:6.0.26", "mongo", {"mongod": programs.mongod}),
    StandIn("apache/kafka:4.1.0", "kafka", {"jars": programs.kafka, **_SHARED}),
    StandIn(
        "confluentinc/cp-kafka:7.9.2",
        "cp-kafka",
        {"jars": programs.kafka_with_zookeeper, **_SHARED},
    ),
    StandIn("zookeeper:3.9.3", "zookeeper", {"jars": programs.zookeeper, **_SHARED}),
    StandIn(
        "mongo-express:1.0.2-20-alpine3.19", "mongo-express", {"program": programs.mongo_express}
    ),
)
IMAGES: Final = (python_base.IMAGE, *(stand_in.image for stand_in in STAND_INS))


def ensure() -> None:
    """See to it that every third-party image of `compose.yaml` is on this machine.

    Raises:
        UnavailableError: Some could not be built; names them and why.
    """
    lacking = build_missing()
    if lacking:
        told = "; ".join(f"{image}: {why}" for image, why in lacking.items())
        raise UnavailableError(f"building images: {told}")


def missing() -> tuple[str, ...]:
    """Give the images of `compose.yaml` (and our own image's base) that are not here."""
    return tuple(image for image in IMAGES if not _label_of(image).is_here)


def build_missing(
    *, is_forced: bool = False, tell: Callable[[str], None] = lambda line: None
) -> dict[str, str]:
    """Build the stand-ins for what is missing, and give those that could not be had, with why.

    Args:
        is_forced: Build stand-ins anew even where they are; a real image stays.
        tell: Gets one line per image.
    """
    lacking = {}
    for image in IMAGES:
        found = _label_of(image)
        if found.is_here and not (is_forced and found.is_stand_in):
            tell(f"{image:<36} {'stand-in' if found.is_stand_in else 'the real one'}, here already")
            continue
        began_s = CLOCK.monotonic_s()
        try:
            _build(image)
        except UnavailableError as error:
            lacking[image] = str(error)
            tell(f"{image:<36} missing: {error}")
        else:
            tell(f"{image:<36} built in {CLOCK.monotonic_s() - began_s:.1f} s")
    return lacking


def _build(image: str) -> None:
    _ensure_base()
    if image == python_base.IMAGE:
        folder = Path(tempfile.mkdtemp(prefix="matchday-python-"))
        try:
            python_base.build(folder)
        except subprocess.CalledProcessError as error:
            raise UnavailableError(f"building {image}: {error}") from error
        finally:
            shutil.rmtree(folder)
        return
    stand_in = next(found for found in STAND_INS if found.image == image)
    contexts = [f"--build-context={name}={get()}" for name, get in stand_in.contexts.items()]
    labelled = ["--label", f"{LABEL}=true", "--tag", image, *contexts]
    done = run(
        ["docker", "build", "--quiet", *labelled, str(HERE / stand_in.folder)],
        timeout_s=BUILD_TIMEOUT_S,
        is_checked=False,
    )
    if done.returncode != 0:
        raise UnavailableError(f"building {image}: {done.stderr.strip()[-800:]}")


def _ensure_base() -> None:
    """Make the Debian base from this machine's own package mirror where it is missing."""
    if _label_of(BASE_IMAGE).is_here:
        return
    if shutil.which("mmdebstrap") is None:
        raise UnavailableError(f"making {BASE_IMAGE}: install the package 'mmdebstrap'")
    listed = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        is_checked=False,
    )
    mirrors = [line for line in listed.stdout.split() if "security" not in line]
    if not mirrors:
        raise UnavailableError(f"making {BASE_IMAGE}: apt knows no mirror")
    with tempfile.TemporaryDirectory(prefix="matchday-base-") as folder:
        packed = Path(folder) / "base.tar"
        slim = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
        made = run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates"),
                *(*slim, BASE_SUITE, str(packed), mirrors[0]),
            ],
            timeout_s=BUILD_TIMEOUT_S,
            is_checked=False,
        )
        if made.returncode != 0:
            raise UnavailableError(f"making {BASE_IMAGE}: {made.stderr.strip()[-800:]}")
        changes = ["--change", 'CMD ["bash"]', "--change", f"LABEL {LABEL}=true"]
        run(["docker", "import", *changes, str(packed), BASE_IMAGE], timeout_s=BUILD_TIMEOUT_S)


@dataclass(frozen=True)
class _Found:
    is_here: bool
    is_stand_in: bool


def _label_of(image: str) -> _Found:
    label = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    done = run(["docker", "image", "inspect", "--format", label, image], is_checked=False)
    return _Found(done.returncode == 0, bool(done.stdout.strip()))
