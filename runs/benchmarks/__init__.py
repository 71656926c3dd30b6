"""Benchmarks: run.py runs and compares them all, or one; each bench_*.py has settings(quick) and measure(...)."""
