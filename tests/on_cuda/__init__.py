"""What only a CUDA card can show, in one command of at most eight minutes: python -m tests.on_cuda."""
