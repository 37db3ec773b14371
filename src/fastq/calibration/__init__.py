"""What is learned from data before weights are quantized: scales, balance, widths."""
