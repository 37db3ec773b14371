"""Kernels: see README.md in this folder for their contract and :mod:`fastq.kernels.table` for the list."""
