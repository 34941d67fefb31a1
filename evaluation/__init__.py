"""Evaluation of models on whole clips and on test sequences, compared with simple baselines. Needs no torch."""
