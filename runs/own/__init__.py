"""Recognise actions in someone's own clips: folders, models, calibration, packs, timelines, pages."""
