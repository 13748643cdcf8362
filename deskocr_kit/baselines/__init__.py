"""What this network is compared with: the original's loop, and transformers' model."""
