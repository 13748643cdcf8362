"""The programs of the probes: probes.py starts each in its own process with `python -m`."""
