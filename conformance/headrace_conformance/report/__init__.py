"""Reports of a run: terminal text, JSON, and a page."""
