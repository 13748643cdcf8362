"""Evaluate a checkpoint: error rates, with intervals, on pages with known text."""
