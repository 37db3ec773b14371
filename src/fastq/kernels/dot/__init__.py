"""Micro-kernels, and the loops around them."""
