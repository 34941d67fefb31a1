"""The STGRU gates (STIP, equation 6) with the layer norms of their two inputs."""
