"""Evaluation: models on whole clips and on test sequences, beside what one would do without a model. Needs no torch."""
