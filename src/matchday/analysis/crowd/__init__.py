"""Crowds: how many people are in each zone, and how densely."""
