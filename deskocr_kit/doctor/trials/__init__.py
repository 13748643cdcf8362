"""What the doctor tries, each in a process of its own: probes.py starts these modules with `python -m`."""
