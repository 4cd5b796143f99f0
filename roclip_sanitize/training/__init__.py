"""Training CLIP on kept pairs, plainly or with RoCLIP.

settings.py    what a run is told
data.py        shards → decoded cache → batches whose order depends on seed and step alone
resident.py    where they are read from: files, or the device that holds all of them
moving.py      between host and GPU without waiting
augment.py     what a batch goes through before the towers see it
picture_augment.py, colour.py                the RoCLIP paper's augmentation of pictures,
caption_augment.py, words.py, synonyms.py    and of captions
pool.py        the pool of recent pairs that RoCLIP matches against
schedule.py    which steps match, and how fast each step learns
objectives.py  what a step minimises
loop.py        the steps themselves, on every rank
step_log.py    what became of them, and what each part of one cost
watching/      who is told of it
checkpoints.py the state of a run, whole or not at all, and places.py, where it lies
keeping.py     what a run keeps on its way, and when
validation.py  the loss on held-out pairs, and the weights that did best
stopping.py    how a run is asked to stop, and stops
train.py       the stage
"""
