"""Quantized arrays in files, and arrays that do not fit into memory."""
