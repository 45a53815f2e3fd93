"""``python -m netfs``."""

import sys

from netfs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
