"""How the hops resolve their doubt and refuse a paused owner: the decisions, without the doing.

Every module holds one protocol as a state machine: events are methods, what is due next is
`do`, and an event that the state does not allow raises RuntimeError, since it is a mistake of
the program. Nothing here does input or output, reads a clock, or knows a thread, so a test
can put a crash between any two steps (`tests/properties/test_protocol_*.py`). The proof
sketches and what they assume of broker, stream and store: `docs/explanation/protocols.md`.

| module | protocol | used by |
|---|---|---|
| `ownership` | fence the owner before, read the tail, then write; refusals | all hops |
| `ticks` | a tick gathered, committed, acknowledged; unanswered commits | ingest |
| `redelivery` | deliveries in doubt, by packet identifier and connection | ingest |
| `positions` | what lies behind a position that moves with its output | stores, analysis |
| `confirming` | a position that moves after its output, dead letters with it | persist |
| `rewinding` | a partition computed again in silence up to its bookmark | analysis |
| `cells` | rows by transaction and statement number | MongoDB |
| `lanes` | what is looked up before it is sent, what an answer means | MongoDB |
"""
