"""Contests: float32 NumPy, fastq and other libraries, timed against each other in fair rounds.

``fastq bench`` and ``benchmarks/`` share this room; nothing else imports it.
"""
