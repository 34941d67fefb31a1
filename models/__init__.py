"""Networks. Each is a step: ``prediction, state = step(frame, state)``. Importing the package does not load torch."""
