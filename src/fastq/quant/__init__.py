"""Choosing parameters, and measuring what they cost."""
