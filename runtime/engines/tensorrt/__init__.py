"""TensorRT: which library is here, and the engines that were built with it. It is imported when it is asked for."""
