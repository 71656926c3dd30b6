"""Decoders: clip.py says what each gives, the other files hold one kind of reader each."""
