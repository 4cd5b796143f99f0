"""Captioned scenes drawn from a seed, so that everything can be tried without a download.

    dice.py ─▶ pen.py ─▶ objects*.py ─┐
                surfaces.py ──────────┴▶ scenes.py ─┐
                vocabulary.py ─▶ wording.py ────────┴▶ render.py ─▶ shards

The pictures are simple and the captions are as uneven as the web's: shop titles, alt text,
hashtags, misspellings, and some that say nothing of their picture.
"""
