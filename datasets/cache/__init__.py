"""Keep frames that were decoded and resized once, in place of videos."""
