"""How well a checkpoint reads: pages with known text, error rates with intervals."""
