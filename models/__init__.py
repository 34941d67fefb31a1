"""The networks. Each is a step: ``prediction, state = step(frame, state)``. Importing this package loads no torch."""
