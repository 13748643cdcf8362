"""What an operator asks of a device: the one definition of launch, copy and wait, and a recorder."""
