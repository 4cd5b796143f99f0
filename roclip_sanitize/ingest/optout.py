"""What a server's X-Robots-Tag forbids.

    X-Robots-Tag: noai, max-image-preview:large   everybody
    X-Robots-Tag: somebot: noai, noimageai        whoever calls itself somebot

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

OPT_OUT_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
WITH_VALUES = frozenset({"max-image-preview", "max-snippet", "max-video-preview", "unavailable_after"})


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
        addressee = ""
        for part in header.lower().split(","):
            name, colon, directive = (text.strip() for text in part.partition(":"))
            if colon and name not in WITH_VALUES:  # it is for this one, and so is what follows
                addressee = name
            else:
                directive = name
            if directive in directives and addressee in ("", agent.lower()):
                return directive
    return ""
