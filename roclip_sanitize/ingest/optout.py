"""What a server's X-Robots-Tag forbids, read as img2dataset reads it.

    X-Robots-Tag: noai, noimageai          everybody
    X-Robots-Tag: somebot: noai            whoever calls itself somebot

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

OPT_OUT_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex"})


def opted_out(
    headers: Iterable[str], *, agent: str = "", directives: frozenset[str] = OPT_OUT_DIRECTIVES
) -> str:
    """The first directive that forbids the use of a picture, or "".

    Args:
        headers: values of all X-Robots-Tag headers.
        agent: what we call ourselves; directives for others do not count.
        directives: those that forbid.
    """
    for header in headers:
        addressee, colon, rest = header.partition(":")
        if colon and addressee.strip().lower() != agent.lower():
            continue
        for directive in (rest if colon else header).split(","):
            if (named := directive.strip().lower()) in directives:
                return named
    return ""
