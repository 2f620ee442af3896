"""What publisher and recorder do about connections that are lost; a socket stands for a broker."""

from __future__ import annotations

import gc
import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from matchday.clock import ManualClock
from matchday.errors import ConfigError, UnavailableError
from matchday.sensors import record as recording
from matchday.sensors.broker import Broker, parse_broker
from matchday.sensors.outbox import Draft, Outbox
from matchday.sensors.publisher import Publisher


def test_lost_connections_leave_nothing_to_the_collector() -> None:
    gc.disable()
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            clock = ManualClock()
            broker = Broker("127.0.0.1", server.getsockname()[1])
            publisher = Publisher(broker, Outbox(), clock, client_id="x")
            before = len(os.listdir("/proc/self/fd"))
            while publisher._attempts < 20:
                publisher.pump(0.02)
                if publisher._connection is None:
                    clock.advance(10.0)
                else:
                    server.accept()[0].close()
            assert len(os.listdir("/proc/self/fd")) <= before
    finally:
        gc.enable()


def test_redelivery_after_two_lost_connections_is_recorded_once(tmp_path: Path) -> None:
    sink = recording._PlainSink(tmp_path / "r.jsonl")
    recorder = recording._Recorder(Broker("h", 1), ["#"], sink, ManualClock())
    recorder._flush_at_s = float("inf")
    for is_again in (False, True):
        message = SimpleNamespace(topic="t", payload=b"{}", mid=1, qos=1, dup=is_again)
        recorder._heard._messages.append((0, message))  # type: ignore[arg-type]
        recorder._write()
        recorder._lost("the broker restarts")
        recorder._lost("it is not there yet")
    sink.close()
    assert len((tmp_path / "r.jsonl").read_bytes().splitlines()) == 1


def test_full_disk_ends_a_recording_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pump(self: recording._Recorder, stop: threading.Event) -> None:
        """Write as if a message had come."""
        self._sink.write(b"{}\n")
        self._sink.flush()

    monkeypatch.setattr(recording._Recorder, "pump", pump)
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    with pytest.raises(UnavailableError, match="No space left"):
        recording.record(
            Broker("h", 1), ["#"], tmp_path / "full.jsonl", ManualClock(), threading.Event()
        )


def test_outbox_is_closed_although_its_disk_is_full(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite")
    outbox.add([Draft("a", b"x", None)])
    outbox.acknowledge(1)
    assert outbox._file is not None
    outbox._file.execute("PRAGMA query_only = ON")
    with pytest.raises(ConfigError, match="readonly"):
        outbox.close()
    assert outbox._file is None


@pytest.mark.parametrize("word", ["secret/x", "secret#x", "secret?x", "secret\u2100x"])
def test_error_of_a_broker_address_shows_no_password(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_broker(f"mqtt://me:{word}@host:1883")
    assert "secret" not in str(caught.value)
