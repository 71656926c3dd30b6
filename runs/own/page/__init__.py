"""The local page: a folder of own clips in the browser, a webcam, and what each change does to the answers."""
