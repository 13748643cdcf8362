"""python -m deskocr_kit"""

from .cli import main

if __name__ == "__main__":
    main()
