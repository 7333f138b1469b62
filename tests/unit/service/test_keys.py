"""API keys: made once, kept as hashes, exchanged without a gap, closed within a second."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.cli import main
from service.errors import BadRequest
from service.keys import (
    LOOK_EVERY_S,
    SCOPES,
    Key,
    KeyRing,
    Rates,
    WatchedKeys,
    keys_path,
    make_key,
    offered,
    read_keys,
    revoke_key,
)
from service.server import check_door
from service.settings import Settings

NOW = 1_790_000_000.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def spoil(path, how: bytes | None) -> None:
    """Bytes in place of the keys, or a folder, which stands for a file that the operating system refuses."""
    path.unlink()
    if how is None:
        path.mkdir()
    else:
        path.write_bytes(how)


def test_what_is_kept_of_a_key_is_its_hash(tmp_path):
    """The secret is in no file, nobody else may read the file, and only the whole secret opens."""
    key, secret = make_key(tmp_path, "shop", ["decide"], NOW)
    assert secret.startswith(f"nb_{key.id}_")
    assert secret.encode() not in keys_path(tmp_path).read_bytes()
    assert stat.S_IMODE(keys_path(tmp_path).stat().st_mode) == 0o600
    ring = read_keys(tmp_path)
    assert ring.find(secret) == key
    assert ring.find(secret[:-1]) is None


def test_a_name_has_two_active_keys_at_most(tmp_path):
    """The old one and its successor; a third needs one of them to be revoked."""
    first, old = make_key(tmp_path, "shop", ["decide"], NOW)
    _, new = make_key(tmp_path, "shop", ["decide"], NOW)
    with pytest.raises(BadRequest, match=f"at most 2 active keys of `shop`, found {first.id}, .*: revoke one first"):
        make_key(tmp_path, "shop", ["decide"], NOW)
    assert revoke_key(tmp_path, first.id, NOW + 1).revoked == NOW + 1
    ring = read_keys(tmp_path)
    assert (ring.find(old), ring.find(new) is None) == (None, False)
    make_key(tmp_path, "shop", ["decide"], NOW)


def test_a_key_that_is_none_cannot_be_revoked(tmp_path):
    """Also one that was revoked before."""
    key, _ = make_key(tmp_path, "shop", ["decide"], NOW)
    revoke_key(tmp_path, key.id, NOW)
    for name in (key.id, "unknown"):
        with pytest.raises(BadRequest, match=r"Expected the id of an active key \(none\)"):
            revoke_key(tmp_path, name, NOW)


def test_commands_at_once_take_nothing_from_each_other(tmp_path):
    """Keys that are made and revoked at the same time are all made, and all revoked."""
    old = [make_key(tmp_path, f"old-{n}", ["decide"], NOW)[0].id for n in range(10)]
    with ThreadPoolExecutor(10) as at_once:
        revoked = at_once.map(lambda key: revoke_key(tmp_path, key, NOW + 1).id, old)
        made = at_once.map(lambda n: make_key(tmp_path, f"new-{n}", ["decide"], NOW)[0].id, range(10))
        told = {*revoked}, {*made}
    keys = read_keys(tmp_path).keys
    assert told == ({key.id for key in keys if key.revoked}, {key.id for key in keys if not key.revoked})


@pytest.mark.parametrize("rate", [0.0, -5.0, float("nan"), float("inf")])
def test_a_key_that_would_let_nothing_pass_is_not_made(tmp_path, rate):
    """A rate is above 0, and a finite number."""
    with pytest.raises(BadRequest, match="Expected a finite rate above 0"):
        make_key(tmp_path, "shop", ["decide"], NOW, rate)
    assert not keys_path(tmp_path).exists()


@pytest.mark.parametrize("name", ["", "  ", "till\n1"])
def test_a_key_has_a_name(tmp_path, name):
    """Whose it is has to be told in a line of the list."""
    with pytest.raises(BadRequest, match="Expected a name of printable characters"):
        make_key(tmp_path, name, SCOPES, NOW)
    assert not read_keys(tmp_path).keys


def test_a_spoiled_file_is_told(tmp_path):
    """Expected, found, where; a folder stands for a file that the operating system refuses."""
    keys_path(tmp_path).write_text("{}")
    with pytest.raises(BadRequest, match="Expected keys, got something else"):
        read_keys(tmp_path)
    spoil(keys_path(tmp_path), None)
    with pytest.raises(BadRequest, match=r"Expected keys, got something else: .*Is a directory"):
        WatchedKeys(tmp_path)


def test_a_running_service_hears_of_keys_within_a_second(tmp_path):
    """Made, revoked; a spoiled file or none leaves what was known; even the last key revoked still asks for one."""
    clock = Clock()
    watched = WatchedKeys(tmp_path, clock)
    assert not watched()
    key, secret = make_key(tmp_path, "shop", ["decide"], NOW)
    assert not watched()  # it has not looked yet
    clock.now += LOOK_EVERY_S
    assert watched().find(secret) == key
    spoiled = keys_path(tmp_path).read_bytes()
    for broken in (b"{", None):
        keys_path(tmp_path).unlink()
        if broken is not None:
            keys_path(tmp_path).write_bytes(broken)
        clock.now += LOOK_EVERY_S
        assert watched().find(secret) == key
    keys_path(tmp_path).write_bytes(spoiled)
    revoke_key(tmp_path, key.id, NOW)
    clock.now += LOOK_EVERY_S
    assert watched().find(secret) is None
    assert watched()


@pytest.mark.parametrize("how", [b"{", b"", b'[{"id": "\xff"}]', b"[]", None])
def test_keys_that_cannot_be_read_are_told_once_and_looked_for_until_they_can(tmp_path, caplog, how):
    """What was known stays; so it does where a list without keys would open a service that asks for them."""
    clock, (_, secret) = Clock(), make_key(tmp_path, "shop", ["decide"], NOW)
    watched, right = WatchedKeys(tmp_path, clock), keys_path(tmp_path).read_bytes()
    spoil(keys_path(tmp_path), how)
    for _ in range(3):
        clock.now += LOOK_EVERY_S
        assert watched().find(secret)
    [said] = caplog.messages
    assert said.startswith("keys stay as they were: Expected keys, ")
    if how is None:
        keys_path(tmp_path).rmdir()
    keys_path(tmp_path).write_bytes(right)
    _, second = make_key(tmp_path, "app", ["decide"], NOW)
    clock.now += LOOK_EVERY_S
    assert watched().find(second)


def test_a_worker_that_comes_later_lets_nobody_in_where_the_others_ask_for_keys(tmp_path):
    """The file was there when the service started, and is gone: until it is back, no key is right."""
    clock = Clock()
    late = WatchedKeys(tmp_path, clock, is_asked=True)
    assert late()
    assert late().find("nb_any") is None
    key, secret = make_key(tmp_path, "shop", ["decide"], NOW)
    clock.now += LOOK_EVERY_S
    assert late().find(secret) == key


def test_a_certificate_that_is_none_is_refused_before_anything_starts(tmp_path):
    """With both files named."""
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).write_text("none")
    files = {"tls_certificate": str(tmp_path / "chain.pem"), "tls_key": str(tmp_path / "key.pem")}
    with pytest.raises(BadRequest, match=r"Expected a certificate and its key, .*chain\.pem"):
        check_door(Settings(home=str(tmp_path), **files))


def test_a_key_has_its_share_of_every_second():
    """A second's worth at once, then as it refills; a key without a rate has no end."""
    clock = Clock()
    rates, key = Rates(clock), Key("a", "shop", ("decide",), "", NOW, rate=5.0)
    assert sum(rates.allows(key) for _ in range(20)) == 5
    clock.now += 0.4
    assert sum(rates.allows(key) for _ in range(20)) == 2
    assert all(rates.allows(Key("b", "shop", ("decide",), "", NOW)) for _ in range(1000))


@pytest.mark.parametrize(
    ("headers", "query", "secret"),
    [
        ({b"authorization": b"Bearer abc"}, {}, "abc"),
        ({b"authorization": b"bearer  abc "}, {}, "abc"),
        ({b"authorization": b"Basic abc"}, {}, None),
        ({b"authorization": b"Bearer"}, {}, None),
        ({b"x-api-key": b"abc"}, {}, "abc"),
        ({}, {"key": "abc"}, "abc"),
        ({}, {}, None),
    ],
)
def test_a_request_brings_its_key_in_a_header_or_in_the_address(headers, query, secret):
    """A page that is being left cannot set headers."""
    assert (offered(headers, query) or None) == secret


def test_without_keys_nobody_listens_beyond_this_machine(tmp_path):
    """Neither is TLS set up by half."""
    home = str(tmp_path)
    check_door(Settings(home=home))
    with pytest.raises(BadRequest, match=r"Expected keys \(`nextbest keys make NAME`\) or a host of this machine"):
        check_door(Settings(home=home, host="0.0.0.0"))  # noqa: S104  # that is what is refused
    make_key(tmp_path, "shop", ["decide"], NOW)
    check_door(Settings(home=home, host="0.0.0.0"))  # noqa: S104  # with keys it may
    with pytest.raises(BadRequest, match="Expected `tls_certificate` and `tls_key` together"):
        check_door(Settings(home=home, tls_key="key.pem"))


def test_the_command_makes_lists_and_revokes(tmp_path, capsys):
    """The secret is printed once; the list has none."""
    run = ["--home", str(tmp_path), "keys"]
    assert main([*run, "list"]) == 0
    assert "no keys" in capsys.readouterr().out
    assert main([*run, "make", "shop", "--scope", "decide", "--scope", "ingest", "--rate", "50"]) == 0
    secret, _, rest = capsys.readouterr().out.partition("\n")
    key = read_keys(tmp_path).find(secret)
    assert (key.name, key.scopes, key.rate) == ("shop", ("decide", "ingest"), 50.0)
    assert "it is not shown again" in rest
    assert main([*run, "list"]) == 0
    listed = capsys.readouterr().out
    assert f"{key.id}  shop" in listed
    assert secret not in listed
    assert main([*run, "revoke", key.id]) == 0
    assert main([*run, "revoke", key.id]) == 1


def test_a_ring_without_keys_asks_for_none():
    """A ring with one does, whatever has become of it."""
    assert not KeyRing()
    assert KeyRing([Key("a", "shop", ("decide",), "", NOW, revoked=NOW)])
