"""Which sockets the endpoint's thread waits for, and whose turn it is to be read.

Owns the selectors. Accepted clients are in one of their own, which the other watches as a
whole: holding all of them back takes one call, however many they are. Does not own the bound
at which that is done (`listener`).
"""

from __future__ import annotations

import select
import selectors
import socket
from typing import Final

from matchday.mqtt.peer import Peer

_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE


class Watch:
    """The sockets of an endpoint; used by its thread only."""

    def __init__(self) -> None:
        """Watch nothing yet; clients are not held back."""
        self._selector = selectors.DefaultSelector()
        self._senders = selectors.DefaultSelector()
        self._selector.register(self._senders, _READ)
        self._is_holding = False
        self._is_sent = False
        self._turns: dict[Peer, None] = {}

    @property
    def is_holding(self) -> bool:
        """Tell whether accepted clients are held back."""
        return self._is_holding

    def add(self, sock: socket.socket) -> None:
        """Watch a socket of the endpoint's own."""
        self._selector.register(sock, _READ)

    def remove(self, sock: socket.socket) -> None:
        """Watch it no more."""
        self._selector.unregister(sock)

    def follow(self, peer: Peer, *, handshake: int = 0, is_closing: bool = False) -> None:
        """Watch a client for what it can go on with.

        Args:
            peer: The client.
            handshake: The poll event that its TLS handshake waits for; 0 outside of one.
            is_closing: New ones are not read any more.
        """
        events = 0
        is_sender = False
        if handshake:
            events = _WRITE if handshake == select.POLLOUT else _READ
        else:
            is_sender = peer.is_greeted and not (peer.has_left or peer.is_full)
            # New ones also while clients are held back: one that comes again must be answered.
            if peer.has_left or not (peer.is_greeted or is_closing):
                events = _READ
            if peer.channel.unsent_bytes:
                events |= _WRITE
        if events != peer.events:
            if not peer.events:
                self._selector.register(peer.channel, events, peer)
            elif events:
                self._selector.modify(peer.channel, events, peer)
            else:
                self._selector.unregister(peer.channel)
            peer.events = events
        if is_sender != peer.is_sender:
            if is_sender:
                self._senders.register(peer.channel, _READ, peer)
            else:
                self._senders.unregister(peer.channel)
            peer.is_sender = is_sender

    def forget(self, peer: Peer) -> None:
        """Watch a client no more; call it before its channel is closed."""
        if peer.events:
            self._selector.unregister(peer.channel)
            peer.events = 0
        if peer.is_sender:
            self._senders.unregister(peer.channel)
            peer.is_sender = False
        self._turns.pop(peer, None)

    def hold_back(self, *, is_on: bool) -> None:
        """Hold accepted clients back, or let them go on."""
        if is_on != self._is_holding:
            self._is_holding = is_on
            if is_on:
                self._selector.unregister(self._senders)
            else:
                self._selector.register(self._senders, _READ)

    def wait(self, timeout_s: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Give what is ready, accepted clients left out; wait for anything, them included."""
        if self._turns and not self._is_holding:
            timeout_s = 0.0
        ready = self._selector.select(timeout_s)
        others = [pair for pair in ready if pair[0].fileobj is not self._senders]
        self._is_sent = len(others) < len(ready)
        return others

    def turns(self) -> list[Peer]:
        """Give the accepted clients to be read; ask once after `wait`, unless they are held back.

        Those are first whose turn did not come before.
        """
        if self._is_sent:
            self._turns |= {key.data: None for key, _ in self._senders.select(0.0)}
        return list(self._turns)

    def begin_turn(self, peer: Peer) -> None:
        """Note that a client is being read: its next turn comes after all others."""
        self._turns.pop(peer, None)

    def queue(self, peer: Peer) -> None:
        """Give a client a turn though nothing more may come from it."""
        self._turns[peer] = None

    def close(self) -> None:
        """Close the selectors."""
        self._senders.close()
        self._selector.close()
