"""The signals of the stop ladder, as this system numbers them."""

import signal

from ...domain.ports.processes import StopSignal

SIGNALS = {StopSignal.TERM: signal.SIGTERM, StopSignal.KILL: signal.SIGKILL}
