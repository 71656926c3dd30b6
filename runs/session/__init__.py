"""Set a run up and lead it to its result: launch, seeds, early checks, profile."""
