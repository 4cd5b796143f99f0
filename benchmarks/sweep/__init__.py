"""Sweeps: attacks × rates × methods × seeds × models, cell by cell, into one table.

sweep_file.py   a TOML file → a checked Sweep
methods.py      the ways to train that can be named
cells.py        a Sweep → cells, each with an identity of its own
corpus.py       the shards that a sweep names, and which classes they have
preparing.py    a cell's poisoned shards, what a scan keeps of them, and their decoded pairs
running.py      cells → results, in waves, resumed cell by cell
sharing.py      one run folder for several processes: whose cells, whose turn
rates.py        the lowest rate at which an attack takes
controls.py     which cells prove nothing, and what the authors published
table.py        results → one tidy table
report.py       the table for readers: Markdown
figure.py       the table for readers: success against rate, utility against success

smoke.toml fashion.toml cc3m.toml laion.toml    sweeps that are ready to run
published.toml                                  what authors reported, with sources
"""
