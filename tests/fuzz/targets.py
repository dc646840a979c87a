"""All targets."""

from typing import Final

from tests.fuzz.connections import CONNECTIONS
from tests.fuzz.credentials import CREDENTIALS
from tests.fuzz.our_own import OUR_OWN
from tests.fuzz.providers import PROVIDERS
from tests.fuzz.requests import REQUESTS
from tests.fuzz.target import Target

TARGETS: Final[tuple[Target, ...]] = (*REQUESTS, *CONNECTIONS, *CREDENTIALS, *PROVIDERS, *OUR_OWN)
