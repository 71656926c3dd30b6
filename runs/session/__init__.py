"""What every part of a run shares: launch, seeds, early checks, identity."""
