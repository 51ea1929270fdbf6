"""This node without its worker: the services that backends are looked after with."""

import logging
from collections.abc import Awaitable, Callable, Mapping

import anyio

from ..container import Container, settle_capability
from ..flags import Flags
from ..logs import set_up_logging
from ..settings import Settings
from ..startup import exit_code, survey

log = logging.getLogger(__name__)

# Looking after backends takes no frontend and no bus: what a worker must be told about them does not matter.
_NOBODY: Flags = {"register_to": "http://nobody.invalid", "bus": "memory"}

_LOOKED_AT = ("--backend-galleries", "--galleries", "--backends-path", "--backends-system-path")

Work = Callable[[Container], Awaitable[int]]


def on_this_node(flags: Flags, work: Work) -> int:
    """Do `work` with the settings that `flags` and the environment say; its exit code."""

    def start() -> int:
        found, environment, warnings = survey({**flags, **_NOBODY})
        settings = found.require().settings
        # People watch: they get warnings, unless they ask for more.
        set_up_logging(level=flags.get("log_level", "warn"), line_format="default", dedup=False)
        ours = (each for each in found.warnings if any(flag in each for flag in _LOOKED_AT))
        for warning in (*warnings, *ours):
            log.warning("%s", warning)
        return anyio.run(_run, settings, environment, work)

    return exit_code(start)


async def _run(settings: Settings, environment: Mapping[str, str], work: Work) -> int:
    container = Container(settings=settings, environment=environment)
    await settle_capability(container)
    return await work(container)
