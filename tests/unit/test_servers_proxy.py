"""The proxy does to a plain connection what it says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from matchday.clock import SystemClock
from servers.ports import LOOPBACK
from servers.process import wait_until
from servers.proxy import Proxy, Way

CLOCK = SystemClock()


class Echo:
    """Sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.got = bytearray()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, name="echo", daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(link,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, link: socket.socket) -> None:
        with closing(link), suppress(OSError):
            while chunk := link.recv(65536):
                self.got += chunk
                link.sendall(chunk)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with closing(Echo()) as server:
        yield server


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as found:
        yield found


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection((LOOPBACK, proxy.port), timeout=5) as link:
        yield link


def read(link: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (chunk := link.recv(count - len(found))):
        found += chunk
    return found


def is_gone(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=5) as link:
            link.sendall(b"anybody?")
            return link.recv(1) == b""
    except OSError:
        return True


def test_bytes_pass_both_ways_as_they_are(client, proxy):
    text = bytes(range(256)) * 2000
    sending = threading.Thread(target=client.sendall, args=(text,))
    sending.start()
    assert read(client, len(text)) == text
    sending.join()
    # The last bytes can be here before the proxy has counted them.
    whole = {Way.TO_SERVER: len(text), Way.TO_CLIENT: len(text)}
    wait_until(lambda: proxy.forwarded == whole, what="all is counted")


def test_end_of_a_stream_passes_through(client):
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert read(client, 100) == b"last words"


def test_delay_holds_for_one_way_only(client, proxy):
    proxy.delay(0.3, ways=[Way.TO_CLIENT])
    began_s = CLOCK.monotonic_s()
    client.sendall(b"late")
    assert read(client, 4) == b"late"
    assert 0.3 <= CLOCK.monotonic_s() - began_s < 3


def test_cut_resets_what_is_open_and_takes_new_connections(client, proxy):
    client.sendall(b"a")
    read(client, 1)
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert not is_gone(proxy.port)


def test_refused_connections_come_again_after_healing(proxy):
    proxy.refuse()
    assert is_gone(proxy.port)
    proxy.heal()
    assert not is_gone(proxy.port)


def test_vanished_peer_is_silent_and_is_reset_on_healing(client, proxy, echo):
    proxy.vanish()
    client.sendall(b"nobody hears")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(5)
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert echo.got == b""


def test_stopped_reader_fills_the_writers_buffers_and_goes_on_in_order(client, proxy, echo):
    proxy.stop_reading(ways=[Way.TO_SERVER])
    client.settimeout(0.3)
    sent = 0
    block = bytes(range(256)) * 256
    with suppress(TimeoutError):
        while sent < 2**30:
            sent += client.send(block)
    assert sent < 2**30
    wait_until(lambda: proxy.links_count == 1, what="connection is open")
    proxy.heal()
    client.settimeout(5)
    assert len(read(client, sent)) == sent
    assert bytes(echo.got) == (block * (sent // len(block) + 1))[:sent]


def test_truncated_stream_ends_in_mid_message(client, proxy, echo):
    proxy.truncate(after_bytes=5, ways=[Way.TO_SERVER])
    client.sendall(b"0123456789")
    with suppress(ConnectionResetError):
        read(client, 100)
    wait_until(lambda: proxy.links_count == 0, what="the connection is closed")
    # The reset may overtake what the server had not read yet.
    assert b"01234".startswith(bytes(echo.got))


def test_corruption_turns_single_bits_over_and_keeps_the_length(client, proxy, echo):
    proxy.corrupt(each_bytes=100, ways=[Way.TO_SERVER])
    text = b"\0" * 20_000
    client.sendall(text)
    wait_until(lambda: len(echo.got) == len(text), what="all bytes arrived")
    damaged = [byte for byte in echo.got if byte]
    assert 100 < len(damaged) < 400
    assert all(byte.bit_count() == 1 for byte in damaged)


def test_throttled_stream_takes_its_time(client, proxy):
    proxy.throttle(100_000, ways=[Way.TO_SERVER])
    began_s = CLOCK.monotonic_s()
    client.sendall(b"x" * 40_000)
    assert len(read(client, 40_000)) == 40_000
    assert CLOCK.monotonic_s() - began_s > 0.3
