"""Encoders: `ENCODERS["clip"]` and `ENCODERS["image"]` build what base.py describes."""
