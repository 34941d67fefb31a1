"""Training: video data, the training loop, and evaluation on whole clips."""
