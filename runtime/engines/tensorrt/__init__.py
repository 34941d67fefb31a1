"""TensorRT: finds the installed library, and caches and runs its engines. TensorRT itself is imported on demand."""
