"""Heads are built from these parts: modulator, alignment, similarity, batch norms."""
