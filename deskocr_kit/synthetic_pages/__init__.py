"""Synthetic pages, drawn from seeds, with their exact text and boxes."""
