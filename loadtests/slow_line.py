"""A line to a server on which answers take longer: `python -m loadtests.slow_line PORT TARGET MILLISECONDS`."""

import asyncio
import sys

import uvloop


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(65_536):
        if delay:
            loop.call_later(delay, writer.write, data)
        else:
            writer.write(data)
    writer.close()


async def serve(port: int, target: int, delay: float) -> None:
    """Until the process ends. `delay`: seconds."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(_carry(reader, inner_writer, 0.0), _carry(inner_reader, writer, delay), return_exceptions=True)

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000.0))
