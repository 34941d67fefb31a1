"""Sinks of results: a video file, a strip of pictures, a browser page, a window."""
