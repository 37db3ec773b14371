"""The machine: its instruction sets, its threads, and compiling for it."""
