"""Entry point of `python -m deskocr_kit.evaluation`."""

from .main import main

main()
