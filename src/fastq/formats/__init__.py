"""Weights in files: reading those that other tools wrote, and fastq's own."""
