"""Sensors: readers of recordings, replay, simulation, the outbox and the publisher.

Everything here stands on the sending side of MQTT. It knows the native contract of
DESIGN's "MQTT in" and nothing of what happens to a message once it is acknowledged.
"""
