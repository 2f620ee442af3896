"""What the benchmarks share: servers, loads, CPU accounts and samples.

Owns how a figure is taken, so that all of them are taken alike: a sampler notes time, CPU
seconds of every process (utime + stime of /proc/PID/stat) and how far the work has come;
a figure is a difference between two samples. Asserts nothing about time. Linux only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

from confluent_kafka import Consumer, KafkaException, TopicPartition  # noqa: E402
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # noqa: E402
from pymongo import MongoClient  # noqa: E402
from report import Sample  # noqa: E402

from matchday.clock import SystemClock  # noqa: E402
from matchday.domain.topics import PLANS, Topic  # noqa: E402
from matchday.stream.kafka import KafkaStream  # noqa: E402
from servers import install  # noqa: E402
from servers.kafka import Kafka  # noqa: E402
from servers.mongo import Mongo  # noqa: E402
from servers.mosquitto import Mosquitto  # noqa: E402
from servers.process import ServerProcess, wait_until  # noqa: E402
from servers.services import MatchdayService  # noqa: E402

HERE = Path(__file__).resolve().parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SAMPLE_EVERY_S = 0.1
STALL_S = 60.0


def cpu_s(pid: int) -> float:
    """Give the CPU seconds (user and system) that a process has used, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


# --- samples ----------------------------------------------------------------------------------


class Sampler:
    """Looks at the processes and at the work, again and again, until the work is through."""

    def __init__(self, pids: Mapping[str, int], done: Callable[[], int]) -> None:
        self._pids = pids
        self._done = done
        self.samples: list[Sample] = []

    def look(self) -> Sample:
        """Take a sample now."""
        cpu = {name: cpu_s(pid) for name, pid in self._pids.items()}
        self.samples.append(Sample(time.monotonic(), self._done(), cpu))
        return self.samples[-1]

    def until(self, wanted: int) -> Sample:
        """Sample until `wanted` are through and the count rests; give where it came to rest.

        Raises:
            SystemExit: Nothing moved for a minute.
        """
        rest = self.look()
        while True:
            time.sleep(SAMPLE_EVERY_S)
            now = self.look()
            if now.done != rest.done:
                rest = now
            still_s = now.at_s - rest.at_s
            if rest.done >= wanted and still_s > 5 * SAMPLE_EVERY_S:
                return rest
            if still_s > STALL_S:
                raise SystemExit(f"benchmark: stuck at {rest.done} of {wanted} messages")

    def first_above(self, done: int) -> Sample:
        """Give the first sample with more than `done` through."""
        return next(sample for sample in self.samples if sample.done > done)


# --- servers --------------------------------------------------------------------------------


class Servers:
    """Real servers in a folder of their own, all gone afterwards."""

    def __init__(self, *, mongo: bool) -> None:
        missing = {name: why for name, why in install.missing().items() if mongo or name != "mongo"}
        if missing:
            raise SystemExit(f"benchmark: {'; '.join(missing.values())}")
        self._stack = ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="matchday-bench-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._run_count = 0
        try:
            self.kafka = self._stack.enter_context(Kafka(self.directory / "kafka"))
            self.mongo = (
                self._stack.enter_context(Mongo(self.directory / "mongo")) if mongo else None
            )
            self._admin = AdminClient(self._client_settings())
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def fresh_directory(self) -> Path:
        """Make a folder for one run."""
        self._run_count += 1
        folder = self.directory / f"run-{self._run_count}"
        folder.mkdir()
        return folder

    @contextmanager
    def broker(self) -> Iterator[Mosquitto]:
        """Run a fresh Mosquitto: sessions of an earlier run would cost it CPU."""
        with Mosquitto(self.fresh_directory()) as mosquitto:
            yield mosquitto

    def reset_topics(self) -> None:
        """Make all topics anew, empty; the broker stays warm."""
        names = [name for name in self._topic_names() if not name.startswith("__")]
        if names:
            for answer in self._admin.delete_topics(names).values():
                answer.result()
            wait_until(lambda: not set(names) & set(self._topic_names()), what="topics are gone")
        with_stream = self.stream()
        try:
            with_stream.prepare()
        finally:
            with_stream.close()

    def stream(self) -> KafkaStream:
        """Open the product's stream on this Kafka; the caller closes it."""
        return KafkaStream(self.kafka.url, clock=SystemClock())

    def appended(self) -> int:
        """Give the sum of the offsets of `analytics`; transactions' markers count as well."""
        places = self._places()
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        answers = self._admin.list_offsets(dict.fromkeys(places, latest))
        return sum(answer.result(10).offset for answer in answers.values())

    def unread(self, group: str) -> int:
        """Give how many offsets of `analytics` a group has not committed."""
        client = Consumer({**self._client_settings(), "group.id": group})
        try:
            committed = client.committed(self._places(), 10)
        except KafkaException:
            return self.appended()
        finally:
            client.close()
        return self.appended() - sum(max(place.offset, 0) for place in committed)

    def committed_keys(self) -> list[tuple[bytes, int]]:
        """Read (key, number) of every committed reading in `analytics`."""
        client = Consumer(
            {
                **self._client_settings(),
                "group.id": "benchmark-count",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )
        places = self._places()
        client.assign([TopicPartition(one.topic, one.partition, 0) for one in places])
        found: list[tuple[bytes, int]] = []
        open_count = len(places)
        while open_count:
            for message in client.consume(5000, 1.0):
                if message.error() is not None:
                    open_count -= 1
                else:
                    value = json.loads(message.value() or b"{}")
                    found.append((message.key() or b"", value["seq"]))
        client.close()
        return found

    def stored(self, database: str, *, collection: str = "sensors") -> Callable[[], int]:
        """Give a function that counts a collection's measurements, without reading them."""
        assert self.mongo is not None
        client: MongoClient[dict[str, Any]] = MongoClient(self.mongo.url)
        self._stack.callback(client.close)

        def count() -> int:
            answer = client[database].command("collStats", collection)
            return int(answer.get("timeseries", {}).get("numMeasurementsCommitted", 0))

        return count

    def _client_settings(self) -> dict[str, Any]:
        # A lost connection at the end of the servers is nothing to print.
        return {
            "bootstrap.servers": self.kafka.bootstrap,
            "log_level": 0,
            "error_cb": lambda _error: None,
        }

    def _topic_names(self) -> list[str]:
        return list(self._admin.list_topics(timeout=10).topics)

    def _places(self) -> list[TopicPartition]:
        plan = PLANS[Topic.ANALYTICS]
        return [TopicPartition(str(plan.topic), number) for number in range(plan.partitions)]


# --- what is measured -----------------------------------------------------------------------


@contextmanager
def running(process: MatchdayService | ServerProcess) -> Iterator[int]:
    """Run a service or a baseline loop; gives its pid, kills it afterwards."""
    process.start()
    try:
        yield process.pid
    finally:
        process.kill()


def service(
    directory: Path, settings: Mapping[str, str], *arguments: str, checkout: Path | None = None
) -> MatchdayService:
    """Make one of our services, with nothing but addresses in its settings.

    Args:
        directory: Holds its log.
        settings: Environment.
        arguments: What follows `matchday`.
        checkout: Another checkout to import the package from; None for this one.
    """
    settings = {**settings, "MATCHDAY_LOG__LEVEL": "warning"}
    if checkout is not None:
        settings["PYTHONPATH"] = str(checkout.resolve() / "src")
    return MatchdayService(directory, arguments, settings)


def loop(directory: Path, *arguments: str) -> ServerProcess:
    """Make a baseline loop; it is started when it has subscribed."""
    log_path = directory / f"baseline-{arguments[0]}.log"
    return ServerProcess(
        name=f"baseline {arguments[0]}",
        argv=[sys.executable, str(HERE / "baseline.py"), *arguments],
        log_path=log_path,
        answers=lambda: log_path.exists() and "ready" in log_path.read_text(encoding="utf-8"),
    )


class Publisher:
    """The load in its own process: made and encoded at once, sent by `go`."""

    def __init__(self, port: int, **options: float | str) -> None:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._child = subprocess.Popen(
            [sys.executable, str(HERE / "publisher.py"), f"--port={port}", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._child.stdout is not None
        if self._child.stdout.readline() != "ready\n":
            raise SystemExit("benchmark: the publisher did not get ready")

    def go(self) -> None:
        """Begin to send."""
        assert self._child.stdin is not None
        self._child.stdin.write("go\n")
        self._child.stdin.flush()

    @property
    def is_sending(self) -> bool:
        """Tell whether it still runs."""
        return self._child.poll() is None

    def result(self) -> dict[str, float]:
        """Wait for its end and give what it did."""
        said, _ = self._child.communicate(timeout=600)
        return dict(json.loads(said))

    def kill(self) -> None:
        """End it, however far it is."""
        self._child.kill()
        self._child.communicate()
