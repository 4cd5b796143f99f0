"""A run, watched from beside: what it leaves in its folder for whoever looks.

record.py    what ran (run.toml), and what became of it when (events.jsonl)
"""
