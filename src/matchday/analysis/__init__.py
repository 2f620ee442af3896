"""Analysis: readings of one stream partition in, findings out, restartable by rewinding.

The analysers are pure (no clock, no input or output); `worker` alone talks to the stream
and `models` alone reads a file.
"""
