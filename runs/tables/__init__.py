"""Results of runs as one table: read (reading), put side by side (cells, layout), written (formats)."""
