"""Keeping for good: document shapes, two stores and the stage that fills them.

`documents` says what is kept and in which shape, `embedded` and `mongo` keep it behind the
ports `Store` and `Query`, `persist` carries it there from the stream. Does not own what a
reading or a finding is (`domain`), nor how long the stream keeps records (`stream`).
"""
