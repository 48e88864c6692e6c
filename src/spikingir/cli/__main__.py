"""``python -m spikingir.cli``."""

import sys

from spikingir.cli import main

sys.exit(main())
