"""``python -m scgpt``."""

import sys

from scgpt.cli import main

sys.exit(main())
