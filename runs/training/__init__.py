"""Turn episodes into weights: the loop, a step, its state and records."""
