"""Entry point of ``python -m bronze <command>``."""

import sys

from bronze.cli import main

sys.exit(main())
