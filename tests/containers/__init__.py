"""Tests of the Compose deployment on a real container engine, and what they need."""
