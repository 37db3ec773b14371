"""The command line: ``python -m fastq``."""
