"""Lists of pictures that are known to be bad, by their hashes, and whether a picture is on one.

    anything else    text, a hash a line: 64 hex digits are a sha256, 32 an md5, 16 a pHash as hashes.py makes
                     them; what follows a comma, and lines that begin with #, count for nothing
    .parquet         a table with any of the columns sha256, md5, phash

Exact hashes tell of the same bytes, pHashes of pictures that look the same, however they were encoded.

Dimension key: L pHashes on the lists.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import DataError
from roclip_sanitize.hashes import DIGITS_OF
from roclip_sanitize.remote import file_name
from roclip_sanitize.storage import here

EXACT = ("sha256", "md5")
LONGEST_LINE = 1 << 12
HEX = re.compile(r"[0-9a-f]+")
KIND_OF = {digits: kind for kind, digits in DIGITS_OF.items()}

Hash = tuple[str, str]
"""Its kind, of DIGITS_OF, and its lower-case hex digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """By what a picture is known.

    Attributes:
        kind: "sha256", "md5" or "phash".
        listed: the hash on the list.
        bits: in how many bits the picture's own differs from it; 0 for exact ones.
    """

    kind: str
    listed: str
    bits: int = 0


class KnownBad:
    """Hashes, to be held against pictures. Memory: 120 bytes an exact one, 8 a pHash.

    Args:
        hashes: of any kind, in any order.
        tolerance: bits of 64 in which pHashes of the same picture may differ.
    """

    def __init__(self, hashes: Iterable[Hash], *, tolerance: int) -> None:
        by_kind: dict[str, set[str]] = {kind: set() for kind in DIGITS_OF}
        for kind, digits in hashes:
            by_kind[kind].add(digits)
        self._exact = {kind: by_kind[kind] for kind in EXACT if by_kind[kind]}
        self._phash_L = np.array(sorted(int(one, 16) for one in by_kind["phash"]), np.uint64)
        self._tolerance = tolerance

    @property
    def counts(self) -> dict[str, int]:
        """How many hashes there are of each kind."""
        return {**{kind: len(its) for kind, its in self._exact.items()}, "phash": len(self._phash_L)}

    @property
    def by_looks(self) -> bool:
        """Whether pictures must be decoded."""
        return len(self._phash_L) > 0

    def find(self, data: bytes, phash: str | None) -> Hit | None:
        """By what a picture is known, if it is; exact hashes first.

        Args:
            data: its bytes.
            phash: its pHash, 16 hex digits; None where nobody looked.

        Cost: one pass over the pHashes, 1 ms for a million.
        """
        for kind, its in self._exact.items():
            if (digest := hashlib.new(kind, data).hexdigest()) in its:
                return Hit(kind=kind, listed=digest)
        return self._alike(int(phash, 16)) if phash and self.by_looks else None

    def _alike(self, phash: int) -> Hit | None:
        bits_L: NDArray[np.uint8] = np.bitwise_count(self._phash_L ^ np.uint64(phash))
        nearest = int(bits_L.argmin())
        if bits_L[nearest] > self._tolerance:
            return None
        listed = f"{int(self._phash_L[nearest]):0{DIGITS_OF['phash']}x}"
        return Hit(kind="phash", listed=listed, bits=int(bits_L[nearest]))


def read_known_bad(paths: Sequence[Path], *, tolerance: int) -> KnownBad:
    """Read lists.

    Raises:
        DataError: one is missing, or holds anything but hashes.
    """
    return KnownBad((one for path in paths for one in _read(path)), tolerance=tolerance)


def _read(path: Path) -> Iterator[Hash]:
    return _of_table(path) if file_name(path).endswith(".parquet") else _of_text(path)


def _of_table(path: Path) -> Iterator[Hash]:
    table = read_table(path)
    named = [kind for kind in DIGITS_OF if kind in table.columns]
    if not named:
        raise DataError(
            f"{path} has the columns {', '.join(table.columns)}, wanted some of {', '.join(DIGITS_OF)}"
        )
    for kind in named:
        for row, value in enumerate(table[kind].drop_nulls().to_list()):
            digits = str(value).lower()
            if len(digits) != DIGITS_OF[kind] or not HEX.fullmatch(digits):
                raise DataError(
                    f"{path}, row {row}: {digits[:40]!r} is no {kind} of {DIGITS_OF[kind]} hex digits"
                )
            yield kind, digits


def _of_text(path: Path) -> Iterator[Hash]:
    try:
        with here(path).open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                text = line.decode("utf-8-sig", "replace").partition(",")[0].strip().lower()
                if not text or text.startswith("#"):
                    continue
                if len(text) not in KIND_OF or not HEX.fullmatch(text):
                    raise DataError(
                        f"{path}, line {number}: {text[:40]!r} is no hash, wanted hex digits: "
                        + ", ".join(f"{digits} of a {kind}" for kind, digits in DIGITS_OF.items())
                    )
                yield KIND_OF[len(text)], text
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
