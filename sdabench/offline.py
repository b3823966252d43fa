"""Forbid network access to this process and to the sdabench processes that it starts. Imports no torch.

sdabench needs the network only for weights that a user names by URL or publisher. Offline, sdabench and the
packages that it is built on use local files only.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from ipaddress import ip_address
from typing import Any

from sdabench.errors import SdabenchError

OFFLINE = "SDABENCH_OFFLINE"  # the environment variable for --offline; child processes inherit it
# Offline switches of other packages.
OTHER_PACKAGES = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "offline",
}
# Audit events of Python: the first have a socket and an address, the others a name or an address.
_CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
_forbidden: ContextVar[str | None] = ContextVar("forbidden", default=None)  # why, in this context


def is_offline() -> bool:
    """Return whether --offline or its environment variable forbids the network."""
    return os.environ.get(OFFLINE, "").strip().lower() not in ("", "0", "false", "f", "no", "n", "off")


@cache
def go_offline() -> None:
    """Forbid this process to connect to other machines, until it ends.

    Loopback, the name and the addresses of this machine, and Unix sockets stay allowed, because distributed
    training needs them. Network access of compiled code that bypasses Python is not detected.

    Raises (in the caller that opens a connection):
        SdabenchError: names the host.
    """
    os.environ.update({OFFLINE: "1"} | OTHER_PACKAGES)
    _watch_connections()


@contextmanager
def network_forbidden(reason: str) -> Iterator[None]:
    """Forbid network access in a context, as :func:`go_offline` does; ``reason`` is the end of the error."""
    _watch_connections()
    token = _forbidden.set(reason)
    try:
        yield
    finally:
        _forbidden.reset(token)


@cache
def _watch_connections() -> None:
    sys.addaudithook(_refuse_other_machines)  # it cannot be removed


def _refuse_other_machines(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _CONNECTIONS and event not in _LOOKUPS:
        return
    reason = _forbidden.get()
    if reason is None and not is_offline():
        return
    if event in _CONNECTIONS:
        connection, target = arguments[:2]
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return  # a Unix socket, for instance
        action = "connect to"
    else:
        target, action = arguments[0], "look up"
    host = target[0] if isinstance(target, tuple) else target
    host = host.decode(errors="replace") if isinstance(host, bytes | bytearray) else host
    if not is_local_host(host):
        if reason is not None:
            raise SdabenchError(f"tried to {action} {host}, but {reason}")
        raise SdabenchError(
            f"tried to {action} {host}, but --offline forbids the network; make the needed files available "
            f"locally, or run without --offline and {OFFLINE}"
        )


def is_local_host(host: str | None) -> bool:
    """Return whether a name or address is this machine's, without using the network."""
    own = socket.gethostname()
    if not host or host.lower() in {"localhost", own.lower(), own.split(".")[0].lower()}:
        return True  # no host means this machine, or the peer of a connected socket
    try:
        address = ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address  # ::ffff:127.0.0.1 is 127.0.0.1
    if address.is_loopback or address.is_unspecified:
        return True
    return not (address.is_multicast or address.is_reserved) and _can_bind(str(address), address.version)


def _can_bind(host: str, version: int) -> bool:
    """Return whether a socket can bind to an address, as only to those of this machine."""
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
