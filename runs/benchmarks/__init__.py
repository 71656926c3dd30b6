"""Benchmarks, from the repository root: run.py runs the suite and compares; each bench_*.py prints its own figures."""
