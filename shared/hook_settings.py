"""The settings of hooks, a part of ``shared/settings.py``."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings

_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _hooks(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError("must be module:Class, such as my_hooks:MyHooks")
    return name


class HookSettings(BaseSettings):
    #: Class with your checks of requests and answers, ``module:Class``; the same for gateways and workers.
    #: docs/hooks.md
    hooks: Annotated[str, AfterValidator(_hooks)] | None = None
    #: Longest time of one call of a hook; then it has failed.
    hook_timeout_s: Annotated[float, Field(ge=0.01, le=300)] = 5
