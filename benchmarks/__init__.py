"""How well and how fast: each module measures claims, and benchmarks/LOG.md keeps every result."""
