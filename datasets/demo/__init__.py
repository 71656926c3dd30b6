"""Render the videos of the demo."""
