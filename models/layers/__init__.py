"""Parts that heads are built from: modulator, alignment, similarity, prototypes."""
