"""Baselines for this network: the original's decoding loop, and the model in transformers."""
