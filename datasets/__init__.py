"""Turn split lists and video files into episodes: annotations -> episode specs -> decode -> transforms -> Episode."""
