"""The vendors' command line tools: run with a bound, in the C locale, killed with everything they started."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

# What a tool needs of the environment; the rest may hold secrets.
_PASSED = (
    "PATH",
    "HOME",
    "LD_LIBRARY_PATH",
    "XDG_RUNTIME_DIR",
    "VK_ICD_FILENAMES",
    "VK_DRIVER_FILES",
    "OCL_ICD_VENDORS",
)
_OUTPUT_BYTES = 4 * 1024 * 1024  # vulkaninfo writes some 60 KB a device


@dataclass(frozen=True)
class Tools:
    """Programs on the `PATH` of `environment`."""

    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, name: str, *arguments: str, timeout_s: float) -> str | None:
        """What `name` prints; None where there is no such program.

        Raises:
            OSError: it failed, took longer than `timeout_s`, or printed more than any tool should.
        """
        program = shutil.which(name, path=self.environment.get("PATH", os.defpath))
        if program is None:
            return None
        environment = {name: self.environment[name] for name in _PASSED if name in self.environment}
        environment["LC_ALL"] = "C"
        with subprocess.Popen(
            [program, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as child:
            try:
                output, _ = child.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired as error:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                raise OSError(f"{name}: no answer within {timeout_s:g} s") from error
        if child.returncode != 0:
            raise OSError(f"{name}: exit code {child.returncode}")
        if len(output) > _OUTPUT_BYTES:
            raise OSError(f"{name}: {len(output)} bytes of output")
        return output.decode("utf-8", errors="replace")
