"""One TCP or TLS connection that never blocks: bytes in, bytes out, unsent bytes kept.

Owns the socket and translates its errors. Knows nothing of MQTT and waits for nothing: its
owner polls. Used by one thread, except that `close` may follow from another once the first
has ended.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from typing import Final

from matchday.errors import ConfigError, UnavailableError

READ_BYTES: Final = 262_144
BACKLOG: Final = 512

_LATER: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Channel:
    """A connected, non-blocking socket with a buffer for what it could not send yet.

    The buffer has no bound of its own: its owner writes only answers, whose number is
    bounded by what it read.
    """

    def __init__(self, sock: socket.socket, *, peer: str) -> None:
        """Take over `sock`, already non-blocking; `peer` names the other side in errors."""
        self._socket = sock
        self._out = bytearray()
        self.peer = peer

    def fileno(self) -> int:
        """Give the file descriptor to poll, -1 once closed."""
        return self._socket.fileno()

    @property
    def unsent_bytes(self) -> int:
        """Tell how many bytes wait to be sent."""
        return len(self._out)

    def read(self, size: int = READ_BYTES) -> bytes | None:
        """Give the bytes that are there, at most `size`; None if there are none now.

        Raises:
            UnavailableError: The other side closed, or the connection broke.
        """
        try:
            chunk = self._socket.recv(size)
        except _LATER:
            return None
        except OSError as error:
            raise translated("reading from", self.peer, error) from error
        if not chunk:
            raise UnavailableError(f"reading from {self.peer}: the other side closed")
        return chunk

    def peek(self, size: int) -> bytes | None:
        """Give the next bytes without taking them; None if there are none now. Not on TLS.

        Raises:
            UnavailableError: The other side closed, or the connection broke.
        """
        try:
            chunk = self._socket.recv(size, socket.MSG_PEEK)
        except _LATER:
            return None
        except OSError as error:
            raise translated("reading from", self.peer, error) from error
        if not chunk:
            raise UnavailableError(f"reading from {self.peer}: the other side closed")
        return chunk

    @property
    def is_tls(self) -> bool:
        """Tell whether the connection is encrypted."""
        return isinstance(self._socket, ssl.SSLSocket)

    def write(self, data: bytes | bytearray) -> None:
        """Add to what is to be sent; `flush` sends it."""
        self._out += data

    def flush(self) -> bool:
        """Send what the connection takes now; tell whether nothing is left.

        Raises:
            UnavailableError: The connection broke.
        """
        try:
            while self._out:
                sent = self._socket.send(self._out)
                del self._out[:sent]
        except _LATER:
            return False
        except OSError as error:
            raise translated("writing to", self.peer, error) from error
        return True

    def handshake(self) -> int:
        """Go on with the TLS handshake; give the poll event it waits for, 0 once complete.

        Raises:
            UnavailableError: The handshake ended without success.
        """
        if not isinstance(self._socket, ssl.SSLSocket):
            return 0
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            return select.POLLIN
        except ssl.SSLWantWriteError:
            return select.POLLOUT
        except OSError as error:
            raise translated("TLS handshake with", self.peer, error) from error
        return 0

    def finish_writing(self) -> None:
        """Tell the other side that nothing more follows; reading goes on.

        Raises:
            UnavailableError: The connection broke.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise translated("closing", self.peer, error) from error

    def close(self) -> None:
        """Close the socket at once; safe to call twice."""
        self._socket.close()


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        ConfigError: The port is in use or cannot be had; the text names it and its flag.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, target = found[0]
        return socket.create_server(
            (str(target[0]), int(target[1])), family=family, backlog=BACKLOG
        )
    except OSError as error:
        # Python's own text of a failed bind repeats the address.
        number = error.errno if error.errno in errno.errorcode else None
        reason = (str(error) if number is None else os.strerror(number)).lower()
        raise ConfigError(
            f"opening the MQTT endpoint on {host} port {port}: {reason}; "
            "choose another port with --mqtt-port"
        ) from error


def wait_until_ready(fileno: int, events: int, *, timeout_s: float) -> bool:
    """Wait until one of the poll events (or an error) shows; tell whether it did."""
    poll = select.poll()
    poll.register(fileno, events)
    return bool(poll.poll(max(0.0, timeout_s) * 1000.0))


def translated(action: str, peer: str, error: OSError) -> UnavailableError:
    """Give the error of this package for one of the socket or TLS library."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"certificate: {error.verify_message}"
    elif isinstance(error, ssl.SSLError):
        reason = (error.reason or "TLS error").lower().replace("_", " ")
    else:
        reason = (error.strerror or type(error).__name__).lower()
    return UnavailableError(f"{action} {peer}: {reason}")
