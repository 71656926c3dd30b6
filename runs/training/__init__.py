"""From episodes to weights: the loop, a step, its state and records."""
