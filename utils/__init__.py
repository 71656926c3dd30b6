"""Helpers that know neither data sets nor models."""
