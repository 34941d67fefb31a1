"""What works on an artifact's graph with no torch: its manifest, its file, and what is made of it for an engine."""
