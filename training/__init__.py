"""Training: video data, the loop, and evaluation on whole clips."""
