"""A network in between, as a process: each connection has a top speed, each request a first delay.

    python -m benchmarks.slow_network TARGET_PORT --rate BYTES_A_SECOND --delay SECONDS

Prints the port it listens on.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

BLOCK_BYTES = 128 * 1024


async def _serve(target: int, rate: float, delay_s: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            answers, questions = await asyncio.open_connection("127.0.0.1", target, limit=BLOCK_BYTES)
            asking = asyncio.create_task(_ask(reader, questions, delay_s))
            await _answer(answers, writer, rate)
            asking.cancel()
            questions.close()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=BLOCK_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(BLOCK_BYTES):
            if delay_s:
                await asyncio.sleep(delay_s)
            writer.write(block)
            await writer.drain()
        writer.write_eof()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
    clock = asyncio.get_running_loop().time
    ready_s = clock()
    while block := await reader.read(BLOCK_BYTES):
        if rate:
            ready_s = max(ready_s, clock() - 0.05) + len(block) / rate
            await asyncio.sleep(max(0.0, ready_s - clock()))
        writer.write(block)
        await writer.drain()


@contextlib.contextmanager
def slow_network(target: int, *, rate: float = 0.0, delay_s: float = 0.0) -> Iterator[int]:
    """The port of such a network before the port `target`."""
    command = [sys.executable, "-m", "benchmarks.slow_network", str(target)]
    with subprocess.Popen(
        [*command, "--rate", str(rate), "--delay", str(delay_s)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("target", type=int)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--delay", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(_serve(given.target, given.rate, given.delay))
