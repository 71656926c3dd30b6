"""Encoders, modulator, alignments, heads and losses. Import `models.builder` to build one from a configuration."""
