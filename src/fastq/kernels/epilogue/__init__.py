"""From int32 sums to the output."""
