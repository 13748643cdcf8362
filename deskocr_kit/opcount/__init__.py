"""The work of operators on a device: the definition of launch, copy and wait, and a recorder."""
