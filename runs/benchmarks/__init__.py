"""Benchmarks: each prints one table; run them from the repository root."""
