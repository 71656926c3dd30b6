"""The rendered videos of the demo."""
