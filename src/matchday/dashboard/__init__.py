"""The web face: a live page, a read-only data browser, a REST interface, probes, metrics.

Start at `state.DashboardState` for what it needs, at `serve.DashboardServer` for running it.
"""
