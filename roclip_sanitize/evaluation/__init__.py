"""What a trained CLIP can do, and what attackers got.

Pure, in the order in which a reader may want them:

intervals.py       95 % intervals of shares, and of other means
counts.py          what is counted, before it has an interval
results.py         the records that every table of the project is made of
seeds.py           several trainings of one arm together
zero_shot.py       classes as captions: which one is a picture most like?
retrieval.py       does a picture find its caption, and a caption its picture?
linear_probe.py    what can a linear model read off the image vectors?
attack_success.py  what attacks on pictures achieved
text_attacks.py    what attacks on captions achieved
goals.py           what the attacks of a ledger want, numbered
measuring.py       from encoded pictures to all of these

The stage:

test_sets.py       pictures to measure on, in parts
public_sets.py     public data sets, where they lie on a disk
split.py           what a test set holds, and how much of it was trained on
encoding.py        parts, seen by sets of weights
clip_benchmark.py  utility as CLIP_benchmark writes it
evaluate.py        the stage
"""
