"""Real servers for tests and benchmarks: Mosquitto, Kafka, MongoDB, started by hand.

Owns getting the servers (`install`), their child processes (`process`) and one module per
server with its settings. Does not own fixtures (tests/conftest.py) nor any client code of
the product: what is read and written through these servers is the caller's.
"""
