"""Artifact graphs without torch: manifests, files, and the passes that prepare a graph for an engine."""
