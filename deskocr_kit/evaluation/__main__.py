"""Entry point of `python -m deskocr_kit.evaluation`."""

from .evaluate import main

main()
