"""What a predictor costs in a live loop: steps, streams, cold starts, memory and power; and the page that shows it."""
