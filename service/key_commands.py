"""`nextbest keys`: make, list and revoke API keys."""

import argparse
import datetime as dt
import time
from collections.abc import Sequence
from pathlib import Path

from service.keys import SCOPES, Key, make_key, read_keys, revoke_key


def main(argv: Sequence[str], *, home: Path, redis_url: str | None) -> int:
    """The command. `redis_url` is not needed."""
    del redis_url
    options = _parser().parse_args(argv[1:])
    if options.what == "make":
        key, secret = make_key(home, options.name, options.scope or SCOPES, time.time(), options.rate)
        print(f"{secret}\n\nkey {key.id} of {key.name} ({', '.join(key.scopes)}): it is not shown again")
    elif options.what == "revoke":
        key = revoke_key(home, options.id, time.time())
        print(f"key {key.id} of {key.name} opens nothing any more")
    else:
        keys = read_keys(home).keys
        for key in keys:
            print(_line(key))
        if not keys:
            print("no keys: whoever reaches the service may use it")
    return 0


def _line(key: Key) -> str:
    made = dt.datetime.fromtimestamp(key.made, dt.UTC).strftime("%Y-%m-%d")
    state = "active" if key.revoked is None else "revoked " + dt.datetime.fromtimestamp(key.revoked, dt.UTC).strftime("%Y-%m-%d")
    rate = f"  {key.rate:g}/s a worker" if key.rate is not None else ""
    return f"{key.id}  {key.name:20}  {','.join(key.scopes):22}  {made}  {state}{rate}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nextbest keys", description="API keys. With the first one, every request needs one.")
    commands = parser.add_subparsers(dest="what", metavar="make | list | revoke", required=True)
    make = commands.add_parser("make", help="make a key and show it, once")
    make.add_argument("name", help="whose it is; each name has at most two active ones, so that they can be exchanged")
    make.add_argument("--scope", action="append", choices=SCOPES, help="what it opens; several times for several (default: all)")
    make.add_argument("--rate", type=float, help="requests a second that each worker takes (default: any number)")
    commands.add_parser("list", help="keys, without their secrets")
    revoke = commands.add_parser("revoke", help="close a key, within a second")
    revoke.add_argument("id")
    return parser
