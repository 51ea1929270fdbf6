"""The peer of `benchmarks.commands`: nats-py and nothing else, in a process of its own.

python -m benchmarks.echo nats://127.0.0.1:4222 bench.echo
"""

import asyncio
import sys

import nats
from nats.aio.msg import Msg


async def main(url: str, subject: str) -> None:
    """Answer every request with its own payload until killed; says `up` once it listens."""
    client = await nats.connect(url)

    async def echo(message: Msg) -> None:
        await message.respond(message.data)

    await client.subscribe(subject, cb=echo)
    await client.flush()
    print("up", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
