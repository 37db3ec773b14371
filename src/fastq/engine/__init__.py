"""From arrays to kernels: plan, prepack, run."""
