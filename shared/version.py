"""The version of Headrace: the packaging, the command line, the API description, logs and metrics read it here."""

from typing import Final

VERSION: Final = "0.3.0"
