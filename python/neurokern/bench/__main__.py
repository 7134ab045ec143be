"""``python -m neurokern.bench``."""

import sys

from .main import main

sys.exit(main())
