"""Players: speed and distance from positions."""
