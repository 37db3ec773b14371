"""Products: operands, NumPy's rules, and the way to the engine."""
