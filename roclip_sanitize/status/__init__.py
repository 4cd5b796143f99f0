"""A run, watched from beside: what it leaves in its folder, read by whoever looks.

record.py    what ran (run.toml), and what became of it when (events.jsonl)
reading.py   how far its stages are, from their markers and logs alone
lines.py     that in words
metrics.py   the same as metrics of the Ray cluster
watching.py  a thread beside the command that brings all of it out

`roclip status` and the progress that a command shows are one and the same look at the folder.
"""
