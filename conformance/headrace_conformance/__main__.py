"""``python -m headrace_conformance``."""

import sys

from headrace_conformance.cli import main

sys.exit(main())
