"""Read pages with something else than the kit's own network: --engine."""
