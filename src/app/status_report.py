"""What `localai-worker status` prints: what the worker of this machine says of itself."""

import json
import ssl
from collections.abc import Mapping
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..domain.durations import spoken
from ..domain.errors import WorkerError
from .settings import Settings

ROUTE = "/v1/status"
_LIMIT_S = 20.0
_GIB = 1024**3
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class NoStatus(WorkerError):
    """The worker does not tell how it is; the text says what was tried and what would be right."""


def ask_status(settings: Settings) -> Mapping[str, Any]:
    """What the worker that runs with these settings answers.

    Raises:
        NoStatus: nobody answers, or not with a status.
    """
    bind = settings.addresses.http_bind
    host = _ANY_ADDRESS.get(bind.host, bind.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{bind.port}{ROUTE}"
    token = settings.registration_token
    try:
        with httpx.Client(
            timeout=_LIMIT_S, trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ) as client:
            answer = client.get(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    except httpx.HTTPError as error:
        raise NoStatus(
            f"no worker answers at {url}: {str(error) or type(error).__name__}; "
            "is it running, with these settings?"
        ) from error
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise NoStatus(f"{url} refuses our token; set LOCALAI_REGISTRATION_TOKEN to the worker's")
    try:
        told = answer.json()
    except ValueError:
        told = None
    if answer.status_code != httpx.codes.OK or not isinstance(told, dict):
        raise NoStatus(f"{url} answers {answer.status_code}, which is no status; is that port a worker's?")
    return told


def status_json(told: Mapping[str, Any]) -> str:
    """One JSON object, as the worker told it."""
    return json.dumps(told, indent=2)


def write_status(told: Mapping[str, Any], console: Console) -> None:
    """Tables for people."""
    node = told["node"]
    console.print(Text(f"node {node['name']}  {node['status']}  {node['id']}"), soft_wrap=True)
    for worry in told["worries"]:
        console.print(Text(f"! {worry}"), soft_wrap=True)
    for gpu in told["gpus"]:
        memory = f"{_gib(gpu.get('free_bytes'))} free of {_gib(gpu.get('total_bytes'))}"
        console.print(Text(f"{gpu['vendor']}: {gpu['name']}, {memory}"), soft_wrap=True)
    if ram := told["ram"]:
        free, total = _gib(ram["available_bytes"]), _gib(ram["total_bytes"])
        console.print(Text(f"RAM: {free} available of {total}"))
    processes = Table("replica", "backend", "state", "port", "pid", "up", "VRAM")
    for row in told["processes"]:
        up = spoken(row["up_s"]) if "up_s" in row else ""
        pid, vram = str(row.get("pid", "")), _gib(row["vram_bytes"]) if "vram_bytes" in row else ""
        cells = (row["replica"], row["backend"], row["state"], str(row["port"]), pid, up, vram)
        processes.add_row(*map(Text, cells))
    console.print(processes if told["processes"] else "no processes")
    for death in told["deaths"]:
        said = f"; last words: {death['last_line']}" if death["last_line"] else ""
        console.print(
            Text(f"died: {death['replica']} at {death['at']}: {death['verdict']}{said}"), soft_wrap=True
        )


def _gib(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / _GIB:.1f} GiB"
