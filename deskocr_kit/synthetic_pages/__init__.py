"""Pages drawn on the spot from seeds, with their exact text and boxes."""
