"""How quick ``roclip ingest`` is beside bare img2dataset, and what expected hashes catch and cost.

    python -m benchmarks.ingesting --shards '…/{00000..00002}.tar' --pairs 4000

A server in a process of its own hands out the pictures of some shards from this machine. Both fetch the
same list with the same settings, in turns, one process each with as many requests at once; the ratio is the
median. Then the list is fetched again with hashes, while one picture in a hundred has been swapped for
another, and all others are encoded again (JPEG 75 at 0.8 of the size): what share of the swapped is refused,
and what share of the others, by exact hashes alone and with perceptual ones beside.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars
from PIL import Image

from benchmarks.claims import Claim, report
from roclip_sanitize.executors import open_executor
from roclip_sanitize.ingest import IngestSettings, ingest_urls
from roclip_sanitize.ingest.fetching import FetchSettings
from roclip_sanitize.ingest.tables import Columns
from roclip_sanitize.shards import Shard, expand_shards

SIDE, THREADS, ROWS_PER_SHARD = 256, 32, 1_000
SWAPPED_EVERY = 100
SPEED, LESS_DROPPED = 0.9, 1 / 3

BARE = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], output_folder=sys.argv[2], input_format="parquet", url_col="url",
             caption_col="caption", output_format="webdataset", processes_count=1, thread_count={threads},
             image_size={side}, resize_mode="keep_ratio", resize_only_if_bigger=True, encode_quality=95,
             number_sample_per_shard={rows}, enable_wandb=False, retries=1, timeout=10)
"""


def serve(folder: Path, asked: Any) -> None:
    """Hand out files of a folder; /again/N what is there of N, encoded again, or another picture."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data = (folder / self.path.strip("/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    ThreadingHTTPServer.request_queue_size = 1024  # of 5 it refuses some, who come again a second later
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    asked.send(server.server_address[1])
    server.serve_forever()


def unpack(shards: str, pairs: int, folder: Path) -> list[str]:
    """Pictures of some shards as files 0, 1, 2, …; again/N each encoded again, or swapped.

    Returns:
        Their captions.
    """
    (folder / "again").mkdir(parents=True)
    captions, data = list[str](), list[bytes]()
    for path in expand_shards(shards):
        with Shard(path) as shard:
            for pair in shard.pairs():
                if len(captions) < pairs:
                    captions.append(pair.caption)
                    data.append(pair.image)
    for number, picture in enumerate(data):
        (folder / str(number)).write_bytes(picture)
        other = data[(number + len(data) // 2) % len(data)] if number % SWAPPED_EVERY == 0 else picture
        (folder / "again" / str(number)).write_bytes(encoded_again(other))
    return captions


def encoded_again(picture: bytes) -> bytes:
    """A picture as another host would have it."""
    image, out = Image.open(io.BytesIO(picture)).convert("RGB"), io.BytesIO()
    size = (max(1, round(0.8 * image.width)), max(1, round(0.8 * image.height)))
    image.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=75)
    return out.getvalue()


def ours(table: Path, out: Path, columns: Columns | None = None) -> float:
    """Ingest a list. Returns the seconds that it took."""
    settings = IngestSettings(
        tables=(table,),
        columns=columns or Columns(),
        image_size=SIDE,
        rows_per_shard=ROWS_PER_SHARD,
        fetching=FetchSettings(concurrency=THREADS, per_host=THREADS, allow_private=True),
    )
    begun = time.perf_counter()
    ingest_urls(settings, out=out, executor=open_executor("local"))
    return time.perf_counter() - begun


def in_a_process(table: Path, out: Path) -> float:
    """ours() in a process of its own, as img2dataset has one: with its imports, as a user waits for them."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.ingesting import ours; "
        "ours(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    return clocked([sys.executable, "-c", code, str(table), str(out)])


def bare(table: Path, out: Path) -> float:
    """The same by img2dataset alone."""
    script = out.with_suffix(".py")
    script.write_text(BARE.format(threads=THREADS, side=SIDE, rows=ROWS_PER_SHARD))
    return clocked([sys.executable, str(script), str(table), str(out)])


def clocked(command: list[str]) -> float:
    """Seconds that a command takes."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def refused(table: Path, out: Path, columns: Columns) -> tuple[float, float]:
    """Shares of swapped pictures, and of others, that hashes refuse."""
    ours(table, out, columns)
    failures = polars.concat([polars.read_parquet(path) for path in sorted((out / "failures").iterdir())])
    lost = {int(url.rpartition("/")[2]) for url in failures["url"]}
    rows = set(range(len(polars.read_parquet(table))))
    swapped = {row for row in rows if row % SWAPPED_EVERY == 0}
    return len(lost & swapped) / len(swapped), len(lost - swapped) / len(rows - swapped)


def main() -> int:
    """Measure, and print the claims."""
    told = _arguments()
    with tempfile.TemporaryDirectory(prefix="ingesting-") as name:
        folder = Path(name)
        captions = unpack(told.shards, told.pairs, folder / "pictures")
        here, there = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(folder / "pictures", there), daemon=True)
        server.start()
        root = f"http://127.0.0.1:{here.recv()}"
        table = folder / "list.parquet"
        urls = [f"{root}/{number}" for number in range(len(captions))]
        polars.DataFrame({"url": urls, "caption": captions}).write_parquet(table)
        ratios = [_ratio(table, folder / f"turn{turn}", swap=bool(turn % 2)) for turn in range(told.turns)]
        ours(table, folder / "first")
        pairs = polars.concat(
            [polars.read_parquet(path) for path in sorted((folder / "first/pairs").iterdir())]
        )
        later = folder / "later.parquet"
        pairs.with_columns(url=pairs["url"].str.replace(root, f"{root}/again")).write_parquet(later)
        exact = refused(later, folder / "exact", Columns(sha256="sha256"))
        both = refused(later, folder / "both", Columns(sha256="sha256", phash="phash"))
        server.terminate()
    for what, (caught, lost) in (("exact hashes alone", exact), ("perceptual ones beside", both)):
        print(f"{what:<24} {caught:7.1%} of swapped pictures refused, {lost:7.2%} of the others")
    ratio = statistics.median(ratios)
    report(
        "ingesting",
        [
            Claim(
                name="rate, of bare img2dataset's", value=ratio, target=f">= {SPEED}", holds=ratio >= SPEED
            ),
            Claim(name="swapped pictures refused", value=both[0], target="1", holds=both[0] == 1),
            Claim(
                name="false drops, of exact hashing's",
                value=both[1] / max(exact[1], 1e-9),
                target="<= 1/3",
                holds=both[1] <= LESS_DROPPED * exact[1],
            ),
        ],
    )
    return 0


def _ratio(table: Path, folder: Path, *, swap: bool) -> float:
    """img2dataset's time, in ours: one after the other, in this order or the other."""
    ways: list[tuple[str, Callable[[Path, Path], float]]] = [("bare", bare), ("ours", in_a_process)]
    folder.mkdir()
    if swap:
        ways.reverse()
    seconds = {name: way(table, folder / name) for name, way in ways}
    print({name: round(value, 1) for name, value in seconds.items()}, flush=True)
    shutil.rmtree(folder)
    return seconds["bare"] / seconds["ours"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", required=True, help="whose pictures are handed out")
    parser.add_argument("--pairs", type=int, default=4_000)
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
