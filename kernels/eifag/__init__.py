"""EIFAG (ASTM, equations 7 and 8): the last cells, averaged with softmax weights."""
