"""Secrets stay out of what is written and shown: keys in URLs, and whatever is named like one."""

from __future__ import annotations

import re
from typing import Any

SECRET_NAMES = r"token|secret|password|passwd|credential|signature|sig|key|api_?key|access_?key\w*|x-amz-\w+"
HIDDEN = "REDACTED"
_LOGIN = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^/@\s'\"]+@", re.IGNORECASE)
_QUERY = re.compile(rf"(?P<name>[?&;](?:[\w-]*[_-])?(?:{SECRET_NAMES})=)[^&;\s'\"]+", re.IGNORECASE)
_BEARER = re.compile(r"(?P<name>\b(?:Bearer|Basic)\s+)[\w.~+/=-]+", re.IGNORECASE)
_FOLDED = re.compile(r"(?<![\w/.+-])[a-z][a-z0-9+.-]+:/(?=[^/\s])")
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_PASSWORD = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*:/{1,2})[^/@:\s]*:[^/@\s]+@", re.IGNORECASE)
_NAMED = re.compile(rf"(?:.*[_-])?(?:{SECRET_NAMES})$", re.IGNORECASE)


def with_urls(text: str) -> str:
    """The text, and URLs in it that pathlib folded as they were told: ``s3:/bucket/a`` is s3://bucket/a."""
    return _FOLDED.sub(r"\g<0>/", text)


def redacted(text: str) -> str:
    """The text without logins and signatures in its URLs, and without bearer tokens."""
    text = _LOGIN.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _QUERY.sub(rf"\g<name>{HIDDEN}", text)
    return _BEARER.sub(rf"\g<name>{HIDDEN}", text)


def unsigned(value: Any) -> Any:
    """What names the same things to everybody: URLs without a password, and without a query that signs them.

    Of lists each, of names with values both, since files are named by where they lie. A string may be several
    URLs, joined by ``::``.
    """
    if isinstance(value, dict):
        return {unsigned(name): unsigned(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [unsigned(each) for each in value]
    if not isinstance(value, str) or not _URL.search(value):
        return value
    return "::".join(map(_unsigned, value.split("::")))


def _unsigned(url: str) -> str:
    bare, mark, query = _PASSWORD.sub(r"\g<scheme>", url).partition("?")
    return bare if _QUERY.search(mark + query) else bare + mark + query


def is_secret(name: str) -> bool:
    """Whether a setting, header or environment variable of this name holds a secret."""
    return _NAMED.fullmatch(name) is not None or name.casefold() == "authorization"
