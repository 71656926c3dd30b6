"""Commands: run.py trains and tests; the rest are its parts."""
