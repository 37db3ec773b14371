"""Extremes, codes, searches."""
