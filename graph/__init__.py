"""Work on an artifact's graph without torch: its manifest, its file, and the graphs that engines run."""
