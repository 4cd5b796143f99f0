"""Is it still the picture that the list's maker saw?

Domains expire: whoever buys one serves what he likes under URLs that everybody downloads (split-view
poisoning; Carlini et al., Poisoning Web-Scale Training Datasets is Practical, 2023).

    sha256, md5    the same bytes: the same picture
    phash          other bytes that look the same: scaled or encoded again, which hosts do all the time

The exact hashes alone throw away every picture that was only encoded again.

Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from roclip_sanitize.hashes import bits_apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a list tells of a picture: lower-case hex, or "" where it tells nothing.

    Attributes:
        sha256: of its bytes.
        md5: of its bytes.
        phash: perceptual_hash() of the picture.
    """

    sha256: str = ""
    md5: str = ""
    phash: str = ""


def mismatch(data: bytes, phash: Callable[[], str], expected: Expected, *, tolerance: int) -> str:
    """Why these are not the bytes of the picture expected, or "" if they are, or if nothing is.

    Args:
        data: what was fetched.
        phash: gives its perceptual hash; asked only where the bytes differ.
        expected: hashes; one exact hash that holds is enough.
        tolerance: bits in which perceptual hashes of one picture may differ.
    """
    exact = {"sha256": expected.sha256, "md5": expected.md5}
    found = {name: hashlib.new(name, data).hexdigest() for name, wanted in exact.items() if wanted}
    if any(found[name] == exact[name] for name in found):
        return ""
    if expected.phash:
        apart = bits_apart(phash(), expected.phash)
        if apart <= tolerance:
            return ""
        return f"looks different: {apart} of 64 bits of its phash, at most {tolerance}"
    return next(
        (f"{name} is {digest[:12]}…, wanted {exact[name][:12]}…" for name, digest in found.items()), ""
    )
