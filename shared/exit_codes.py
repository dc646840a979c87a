"""Exit codes of our processes, besides 0 and 1."""

from typing import Final

#: A setting, a missing package or the configuration of Redis is wrong: a restart cannot help. Command line errors
#: have the same code.
CONFIGURATION_ERROR: Final = 2
