"""python -m deskocr_kit"""

from .cli import main

main()
