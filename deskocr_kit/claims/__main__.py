"""python -m deskocr_kit.claims"""

import sys

from .ledger import main

sys.exit(main(sys.argv[1:]))
