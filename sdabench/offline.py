"""Keeps this process, and those of sdabench that it starts, off the network. Free of torch.

sdabench needs the network only for weights that a user names by a URL or by their publisher; this holds it,
and the packages that it is built on, to what is on this machine.
"""

import os
import socket
import sys
from functools import cache
from ipaddress import ip_address
from typing import Any

from sdabench.errors import SdabenchError

OFFLINE = "SDABENCH_OFFLINE"  # as --offline, also for the processes that a suite starts
# What tells other packages, here and in child processes, not to try.
OTHERS = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "offline",
}
# Python's audit events: the first have a socket and an address, the others a name or an address.
_CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_LOOK_UPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")


def is_offline() -> bool:
    """Whether the network is forbidden: by --offline, or by the variable alone."""
    return os.environ.get(OFFLINE, "").strip().lower() not in ("", "0", "false", "f", "no", "n", "off")


@cache
def go_offline() -> None:
    """From now on, each attempt of this process's Python to reach another machine is an error.

    This machine itself may be reached: by loopback, by its own name and addresses, and through Unix
    sockets, as processes that train together need it. What compiled code does on its own, Python does not
    see. There is no way back.

    Raises (in whoever tries):
        SdabenchError: what was wanted, and that it is forbidden.
    """
    os.environ.update({OFFLINE: "1"} | OTHERS)
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _CONNECTIONS:
        connection, target = arguments[:2]
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return  # a Unix socket, say
        deed = "connect to"
    elif event in _LOOK_UPS:
        target, deed = arguments[0], "look up"
    else:
        return
    host = target[0] if isinstance(target, tuple) else target
    host = host.decode(errors="replace") if isinstance(host, bytes | bytearray) else host
    if not is_here(host):
        raise SdabenchError(
            f"something wanted to {deed} {host}, and --offline forbids the network; put what it needs on "
            f"this machine, or leave out --offline and {OFFLINE}"
        )


def is_here(host: str | None) -> bool:
    """Whether a name or an address is that of this machine; found out without the network."""
    own = socket.gethostname()
    if not host or host.lower() in {"localhost", own.lower(), own.split(".")[0].lower()}:
        return True  # none means this machine, or whom a socket is connected to already
    try:
        address = ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address  # ::ffff:127.0.0.1 is 127.0.0.1
    if address.is_loopback or address.is_unspecified:
        return True
    return not (address.is_multicast or address.is_reserved) and _can_be_bound(str(address), address.version)


def _can_be_bound(host: str, version: int) -> bool:
    """Whether an address is one of this machine's: only those can be bound."""
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
