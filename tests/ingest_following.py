"""The short way of steady readings, one at a time; `ingest.steady` goes it by the batch."""

from __future__ import annotations

from matchday.ingest.identity import Identities


def follows(known: Identities, source: str, numbering: str, seq: int, t_ms: int) -> bool:
    """Take in a reading if it is the very next of a known numbering; tell whether it was."""
    window = known.windows.get(numbering, {}).get(source)
    if window is None or not window.append_next(seq, t_ms):
        return False
    known.took(1)
    return True
