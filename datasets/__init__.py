"""From split lists and video files to episodes: annotations -> episode specs -> decode -> transforms -> Episode."""
