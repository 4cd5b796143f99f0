"""Find, set aside and train past poisoned image-caption pairs.

    shards ─▶ embed ─▶ index ─▶ scan ─▶ rewrite ─▶ pair ─▶ train ─▶ evaluate ─▶ report

Each arrow is a command of ``roclip``, a module of this package and a folder on disk.
Importing the package loads none of torch, ray and faiss.
"""

__version__ = "0.1.0"
