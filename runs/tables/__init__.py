"""Results of runs as one table (table): read (reading), put side by side (cells, layout), written (formats)."""
