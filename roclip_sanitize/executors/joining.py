"""Which Ray cluster is joined, and whether it has the GPUs: asked here, since Ray waits without a word."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Sequence

from roclip_sanitize.errors import ConfigError, RoclipError

ADDRESS_VARIABLE = "RAY_ADDRESS"
TRY_SECONDS, TRY_EVERY_SECONDS = 5.0, 1.0
ANSWERS_WITHIN_SECONDS = 30.0  # a head node that is just being started takes as long


def cluster_address() -> str:
    """The cluster that RAY_ADDRESS names; "" for one of this machine's own."""
    told = os.environ.get(ADDRESS_VARIABLE, "").strip()
    return "" if told == "local" else told


def require_answer(address: str) -> None:
    """Refuse a cluster's address that nobody listens at: Ray itself would try for minutes, without a word.

    Args:
        address: such as head:6379. What names no host and port, such as "auto", is left to Ray.

    Raises:
        ConfigError: it is a job server's.
        RoclipError: nobody answers there.
    """
    scheme, _, place = address.rpartition("://")
    if scheme in {"http", "https"}:
        raise ConfigError(
            f"{ADDRESS_VARIABLE} is {address}, wanted the cluster's own address, such as head:6379; "
            "URLs are for 'roclip submit --address'"
        )
    host, _, port = place.rpartition(":")
    if scheme not in {"", "ray"} or not host or not port.isdecimal():
        return
    until = time.monotonic() + ANSWERS_WITHIN_SECONDS
    while why := _silent(host.strip("[]"), int(port)):
        if time.monotonic() >= until:
            raise RoclipError(f"no Ray cluster answers at {ADDRESS_VARIABLE}={address}: {why}")
        time.sleep(TRY_EVERY_SECONDS)


def require_gpus(wanted: float, nodes: Sequence[float], *, may_grow: bool) -> None:
    """See that there is a node where a worker finds its GPUs.

    Args:
        wanted: by each worker.
        nodes: how many each node has.
        may_grow: whether other nodes may join, so that they are waited for, and a line says so.

    Raises:
        ConfigError: there is none, and there will be none.
    """
    most = max(nodes, default=0)
    if wanted <= most:
        return
    if not may_grow:
        raise ConfigError(f"gpus-per-worker is {wanted:g}, this machine has {most:g}")
    found = f"nodes with {most:g} at most" if most else "none"
    logging.getLogger(__name__).warning(
        "gpus-per-worker is %g: waiting for a node with as many, the cluster has %s", wanted, found
    )


def _silent(host: str, port: int) -> str:
    """Why nobody answers there; "" if somebody does."""
    try:
        socket.create_connection((host, port), timeout=TRY_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:  # not there, or no name or number of a host
        return getattr(error, "strerror", None) or str(error)
    return ""
