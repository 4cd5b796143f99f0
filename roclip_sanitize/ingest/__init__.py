"""URL lists → shards: the ``ingest`` stage, from what others know only by its address.

tables.py     parquet, tsv, csv and jsonl lists → rows: URL, caption, expected hashes
fetching.py   URL → bytes, bounded in time, size, redirects and in where it may lead; door to aiohttp
optout.py     what a server's X-Robots-Tag forbids
expected.py   bytes and hashes → whether it is still the picture that the list's maker saw
resizing.py   bytes → the picture as a shard has it, by img2dataset's resizer; door to img2dataset
shard.py      rows → one shard, and a list of what could not be had
stage.py      all of a list, on workers; what became of each domain
"""

from roclip_sanitize.ingest.stage import IngestSettings, ingest_limits, ingest_urls, why_nothing

__all__ = ["IngestSettings", "ingest_limits", "ingest_urls", "why_nothing"]
