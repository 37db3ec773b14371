"""Whole models: many arrays at once."""
