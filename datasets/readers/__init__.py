"""Opened videos: who reads which file, and the decoders themselves."""
