"""Live data about players and crowds, moved, accounted for, analysed, stored and shown.

The package owns the whole path from a sensor's MQTT message to a stored and
analysed reading. Start at `matchday.cli` for what it does, at `matchday.ports`
for the promises its stages need, and at `matchday.domain` for its words.
"""

__version__ = "0.1.0"
