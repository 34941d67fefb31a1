"""EIFAG (ASTM, equations 7 and 8): the memory of the last cells, gathered by a softmax over them."""
