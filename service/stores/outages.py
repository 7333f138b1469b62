"""Tells in the service's log that Redis went, and that it is back: once each, however many requests meet it."""

import asyncio

from service.logs import logger
from service.ports import CustomerReader

STEADY_S = 5.0  # of answers, and an outage is over: a Redis that is slow comes and goes many times a minute


async def tell_outages(reader: CustomerReader, interval: float, steady: float = STEADY_S) -> None:
    """Look every `interval` seconds until cancelled; `steady`: seconds. What the reader notices is what requests meet."""
    loop, down, since = asyncio.get_running_loop(), False, 0.0
    while True:
        status = reader.status()
        if not status["answers"]:
            if not down:
                logger.warning("Redis does not answer, decisions do without it: %s", status["problem"])
            down, since = True, loop.time()
        elif down and loop.time() - since >= steady:
            down = False
            logger.info("Redis answers again")
        await asyncio.sleep(interval)
