"""Bringing operands into tiles."""
