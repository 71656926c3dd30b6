"""A sweep (sweep): what to run (grid), run it (execute), or hand it to Slurm (slurm)."""
