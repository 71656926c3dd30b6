"""Heads are built from these parts: modulator, alignment, similarity, prototypes, batch norms."""
