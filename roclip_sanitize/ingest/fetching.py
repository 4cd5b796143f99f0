"""URL → bytes, or why not. Door to aiohttp.

Whoever made a list of URLs does not own what they lead to. So all is bounded: seconds for the whole answer,
bytes as they come, redirects, tries, connections to one host. And addresses of this network are nobody's
business, whichever name or redirect leads to them: a host is looked up, and called under what was found.

A try that may fare better is made again after a pause that doubles; what a server says for good is final.

All of one Fetcher runs in one event loop.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from roclip_sanitize.ingest.optout import OPT_OUT_DIRECTIVES, opted_out

AGENT = "roclip-sanitize"
USER_AGENT = f"Mozilla/5.0 (compatible; {AGENT}/0.1)"
MAX_REDIRECTS = 5
BLOCK_BYTES = 64 << 10
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0
MOVED = frozenset({301, 302, 303, 307, 308})
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_URL_LETTERS = 8_192
CARRYING_IPV4 = tuple(  # in their last 32 bits: mapped, translated, NAT64, and the compatible of old
    map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96"))
)
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's window bits


class FetchReason(StrEnum):
    """Why a URL gave no picture. The words appear in tables; http_404 and the like stand beside them."""

    BAD_URL = "bad_url"
    PRIVATE_ADDRESS = "private_address"
    NO_SUCH_HOST = "no_such_host"
    REFUSED = "connection_failed"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    REDIRECTS = "too_many_redirects"
    OPTED_OUT = "opted_out"
    BROKEN_ANSWER = "broken_answer"


class FetchError(Exception):
    """A URL gave nothing.

    Attributes:
        reason: what counts.
        detail: what explains.
        again: whether another try may help.
        pause: seconds that the server asks for until then.
    """

    def __init__(self, reason: str, detail: str, *, again: bool = False, pause: float = 0.0) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail, self.again, self.pause = reason, detail, again, pause


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """How far to go for a URL.

    Attributes:
        concurrency: requests under way at once.
        per_host: of these, to one host.
        timeout: seconds for one answer, from the look-up of its host to its last byte.
        max_bytes: of one answer, unpacked.
        retries: further tries after a failure that may pass.
        respect_opt_out: whether X-Robots-Tag is heeded.
        allow_private: whether addresses of this machine and its network may be called.
    """

    concurrency: int = 64
    per_host: int = 8
    timeout: float = 10.0
    max_bytes: int = 20_000_000
    retries: int = 1
    respect_opt_out: bool = True
    allow_private: bool = False


class Fetcher:
    """Fetches URLs, many at a time; see opened()."""

    def __init__(self, settings: FetchSettings, session: aiohttp.ClientSession) -> None:
        self._settings, self._session = settings, session
        self._room = asyncio.Semaphore(settings.concurrency)
        self._of_host: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(settings.per_host)
        )

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: FetchSettings) -> AsyncIterator[Fetcher]:
        """A fetcher while the block lasts."""
        connector = aiohttp.TCPConnector(
            limit=0, resolver=_Resolver(allow_private=settings.allow_private), ttl_dns_cache=300
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # which knows no bound
            headers={"User-Agent": USER_AGENT, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),
        ) as session:
            yield cls(settings, session)

    @asynccontextmanager
    async def fetched(self, url: str) -> AsyncIterator[bytes]:
        """The bytes that a URL leads to. While the block lasts they count as under way.

        So whoever works on them slowly is sent no more than ``concurrency`` of them.

        Raises:
            FetchError: there are none to be had.
        """
        for attempt in range(self._settings.retries + 1):
            try:
                data = await self._try(url)
            except FetchError as error:
                if not error.again or attempt == self._settings.retries:
                    raise
                pause = max(FIRST_PAUSE_SECONDS * 2**attempt, error.pause) * random.uniform(0.5, 1.0)
                await asyncio.sleep(min(pause, LONGEST_PAUSE_SECONDS))
                continue
            try:
                yield data
            finally:
                self._room.release()
            return

    async def _try(self, text: str) -> bytes:
        """One try, redirects and all. Keeps the room that it took if it succeeds.

        The clock starts once there is room: who waits for others is not late.
        """
        url = self._checked(text)
        async with self._of_host[url.raw_host or ""]:
            await self._room.acquire()
            try:
                return await self._in_time(url)
            except BaseException:
                self._room.release()
                raise

    async def _in_time(self, url: URL) -> bytes:
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await self._followed(url)
        except TimeoutError as error:
            detail = f"no whole answer in {self._settings.timeout:g} s"
            raise FetchError(FetchReason.TIMEOUT, detail, again=True) from error
        except aiohttp.ClientConnectorDNSError as error:
            raise _look_up_failure(error) from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise FetchError(FetchReason.REFUSED, _said(error), again=True) from error
        except aiohttp.ClientPayloadError as error:
            raise FetchError(FetchReason.BROKEN_ANSWER, _said(error), again=True) from error
        except (aiohttp.ClientError, ValueError, zlib.error) as error:
            raise FetchError(FetchReason.BROKEN_ANSWER, _said(error)) from error

    async def _followed(self, url: URL) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status not in MOVED or "Location" not in answer.headers:
                    return await self._body(answer)
                url = self._checked(answer.headers["Location"], beside=url)
        raise FetchError(FetchReason.REDIRECTS, f"more than {MAX_REDIRECTS}")

    def _checked(self, text: str, *, beside: URL | None = None) -> URL:
        """A URL, if it may be called. Its host is read as it will be called: 2130706433 is an address, too.

        Raises:
            FetchError: it is none, of another scheme, or names an address of this network.
        """
        if len(text) > MAX_URL_LETTERS:
            raise FetchError(FetchReason.BAD_URL, f"{len(text):,} letters, at most {MAX_URL_LETTERS:,}")
        try:
            url = URL(text) if beside is None else beside.join(URL(text))
        except (TypeError, ValueError) as error:
            raise FetchError(FetchReason.BAD_URL, _said(error)) from error
        if url.scheme not in {"http", "https"} or not url.raw_host:
            raise FetchError(FetchReason.BAD_URL, "wanted http:// or https:// and a host")
        if not self._settings.allow_private and _is_private(url.raw_host):
            raise FetchError(FetchReason.PRIVATE_ADDRESS, url.raw_host)
        return url

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        if answer.status != 200:
            pause = _seconds(answer.headers.get("Retry-After", ""))
            again = answer.status in TRY_AGAIN
            raise FetchError(f"http_{answer.status}", answer.reason or "", again=again, pause=pause)
        if self._settings.respect_opt_out:
            tags = answer.headers.getall("X-Robots-Tag", [])
            if directive := opted_out(tags, agent=AGENT, directives=OPT_OUT_DIRECTIVES):
                raise FetchError(FetchReason.OPTED_OUT, f"X-Robots-Tag: {directive}")
        self._require_small(answer.content_length or 0)
        packed = answer.headers.get("Content-Encoding", "").strip().lower()
        if packed not in {"", "identity", *PACKED}:
            raise FetchError(FetchReason.BROKEN_ANSWER, f"Content-Encoding is {packed[:40]!r}")
        body, unpacking = bytearray(), zlib.decompressobj(PACKED[packed]) if packed in PACKED else None
        async for block in answer.content.iter_chunked(BLOCK_BYTES):
            room = self._settings.max_bytes - len(body) + 1
            body += unpacking.decompress(block, room) if unpacking else block
            self._require_small(len(body))
        if unpacking and not unpacking.eof:
            raise FetchError(FetchReason.BROKEN_ANSWER, "its packing breaks off", again=True)
        return bytes(body)

    def _require_small(self, size: int) -> None:
        if size > self._settings.max_bytes:
            raise FetchError(FetchReason.TOO_LARGE, f"more than {self._settings.max_bytes:,} bytes")


class _PrivateAddress(OSError):
    """A name leads into this network."""


class _Resolver(AbstractResolver):
    """Looks hosts up, and leaves out addresses that are not for everybody."""

    def __init__(self, *, allow_private: bool) -> None:
        self._resolver, self._allow_private = aiohttp.ThreadedResolver(), allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [one for one in found if self._allow_private or not _is_private(one["host"])]
        if found and not public:
            raise _PrivateAddress(f"{host} is {found[0]['host']}")
        return public

    async def close(self) -> None:
        await self._resolver.close()


def _is_private(host: str) -> bool:
    """Whether a literal address is not for everybody; a name is none. An address in an old spelling is.

    One that carries an IPv4 address is judged by that: gateways turn it into it again.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ":" in host or not any(letter.isalpha() for letter in host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local or address in LOCAL_NAT64:
            return True
        if any(address in network for network in CARRYING_IPV4):
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        else:
            address = address.sixtofour or address
    return not address.is_global or address.is_multicast


def _look_up_failure(error: aiohttp.ClientConnectorDNSError) -> FetchError:
    if isinstance(error.os_error, _PrivateAddress):
        return FetchError(FetchReason.PRIVATE_ADDRESS, str(error.os_error))
    final = getattr(error.os_error, "errno", None) in {socket.EAI_NONAME, None}
    return FetchError(FetchReason.NO_SUCH_HOST, _said(error.os_error), again=not final)


def _seconds(text: str) -> float:
    return float(text) if text.strip().isdecimal() and len(text) < 6 else 0.0


def _said(error: BaseException | Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
