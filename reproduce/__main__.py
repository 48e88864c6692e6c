"""``python -m reproduce``."""

import sys

from spikingir.cli import main

sys.exit(main(commands="reproduce.commands"))
