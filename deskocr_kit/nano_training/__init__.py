"""How the embedded checkpoint `nano` learns to read: `python -m deskocr_kit.nano_training.train`."""
