"""What a trained CLIP can do, and what attackers got.

intervals.py       95 % intervals of shares
results.py         the records that every table of the project is made of
zero_shot.py       classes as captions: which one is a picture most like?
retrieval.py       does a picture find its caption, and a caption its picture?
attack_success.py  what each planted attack achieved
evaluate.py        the stage
"""
