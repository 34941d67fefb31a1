"""Where events go: a video file, a strip of pictures, a browser page."""
