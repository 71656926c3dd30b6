"""Writes what was said of clips as one page."""
def write_page(*_): pass
