"""The quantized array, and what NumPy's code may do with it."""
