"""Scenes: what a picture shows, decided first, and then its pixels.

    imagine() ─▶ Scene ─▶ draw_scene() ─▶ RGB picture ─▶ camera.py ─▶ JPEG bytes
                   └▶ wording.py

Objects are drawn at twice the size as inks, coloured through a palette and shrunk,
which smooths their edges.

Dimension key: H, W height and width in pixels of the larger canvas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from PIL import Image

from roclip_sanitize.corpus.backdrops import (
    BACKGROUND_SHARES,
    choose_backdrop,
    draw_backdrop,
    draw_clutter,
    draw_shadows,
    draw_wires,
)
from roclip_sanitize.corpus.camera import photograph
from roclip_sanitize.corpus.dice import between, chance, pick, weighted
from roclip_sanitize.corpus.habits import HABITS, USUAL_SHARE
from roclip_sanitize.corpus.objects import FREQUENCIES, OBJECTS
from roclip_sanitize.corpus.pen import Ink, Pen, Pose
from roclip_sanitize.corpus.surfaces import (
    BLACK,
    COLOURS,
    TEXTURE_SHARES,
    WHITE,
    Colour,
    blend,
    distance,
    nearby,
    texture,
)

OVERSAMPLING = 2
MIN_SIDE_PX, MAX_SIDE_PX = 72, 96
COUNT_SHARES = {1: 0.84, 2: 0.11, 3: 0.05}
PLACE_SHARES = {"centre": 0.8, "left": 0.1, "right": 0.1}
COLUMNS = {"left": 0.3, "centre": 0.5, "right": 0.7}
HALF_WIDTHS = {
    1: (0.34, 0.43),
    2: (0.22, 0.26),
    3: (0.17, 0.21),
}  # of an object, in shares of the shorter side
REACH = 1.15  # how far a turned object extends from its centre, in half widths
MAX_TURN = math.radians(10)
MIN_TEXTURE_CONTRAST = 120  # between backdrop and a texture's second colour, of distance()'s 765
TEXTURE_LEVELS = 32  # steps between a texture's two colours; their palette entries follow the inks'
FIXED_INKS: dict[Ink, Colour] = {
    Ink.DARK: (30, 28, 30),
    Ink.PALE: (244, 240, 228),
    Ink.WOOD: (134, 92, 56),
    Ink.METAL: (128, 133, 140),
    Ink.GLASS: (176, 212, 232),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What one picture shows.

    Attributes:
        label: the object's class, one of OBJECTS.
        colour: its colour, one of COLOURS.
        texture: what covers it, one of TEXTURES.
        count: how many there are, 1 to 3.
        background: what is behind, one of BACKGROUND_SHARES.
        place: where a single object stands: "left", "centre" or "right"; several are spread evenly.
        width: of the picture, pixels.
        height: of the picture, pixels.
    """

    label: str
    colour: str
    texture: str
    count: int
    background: str
    place: str
    width: int
    height: int


def imagine(rng: Generator) -> Scene:
    """Decide on a scene."""
    count, label = weighted(rng, COUNT_SHARES), weighted(rng, FREQUENCIES)
    usual = HABITS[label]
    colours = usual.colours if chance(rng, USUAL_SHARE) else list(COLOURS)
    any_background = weighted(rng, BACKGROUND_SHARES)
    return Scene(
        label=label,
        colour=pick(rng, colours),
        texture=weighted(rng, TEXTURE_SHARES),
        count=count,
        background=pick(rng, usual.backgrounds) if chance(rng, USUAL_SHARE) else any_background,
        place=weighted(rng, PLACE_SHARES) if count == 1 else "centre",
        width=int(rng.integers(MIN_SIDE_PX, MAX_SIDE_PX + 1)),
        height=int(rng.integers(MIN_SIDE_PX, MAX_SIDE_PX + 1)),
    )


def draw_scene(scene: Scene, rng: Generator) -> Image.Image:
    """The scene's pixels, RGB; another picture of it with every call."""
    colour = nearby(rng, COLOURS[scene.colour])
    backdrop = choose_backdrop(scene.background, behind=colour, rng=rng)
    image = draw_backdrop(scene.background, size=(scene.width, scene.height), colour=backdrop, rng=rng)
    if chance(rng, 0.15):
        draw_clutter(image, rng)
    poses = place_objects(scene, rng)
    if chance(rng, 0.35):
        draw_shadows(image, poses)
    second = _second_colour(colour, backdrop=backdrop, rng=rng)
    cutout = _draw_objects(scene, poses, colours=(colour, second), rng=rng)
    image.paste(cutout, (0, 0), cutout)
    if chance(rng, 0.06):
        draw_wires(image, rng)
    return photograph(image, rng)


def place_objects(scene: Scene, rng: Generator) -> list[Pose]:
    """Where the scene's objects stand: wholly inside the picture, in its pixels."""
    shorter = min(scene.width, scene.height)
    size = shorter * between(rng, *HALF_WIDTHS[scene.count])
    room, lean = size * REACH, MAX_TURN * (1 if chance(rng, 0.6) else 0.3)
    poses = list[Pose]()
    for number in range(scene.count):
        column = COLUMNS[scene.place] + (number - (scene.count - 1) / 2) / scene.count
        x = scene.width * column + shorter * between(rng, -0.05, 0.05)
        y = scene.height * 0.5 + shorter * between(rng, -0.12, 0.12)
        x, y = min(max(x, room), scene.width - room), min(max(y, room), scene.height - room)
        turn, mirrored = between(rng, -lean, lean), chance(rng, 0.5)
        poses.append(Pose(x=x, y=y, size=size, turn=turn, mirrored=mirrored))
    return poses


def draw_inks(label: str, poses: list[Pose], *, size: tuple[int, int], rng: Generator) -> Image.Image:
    """Objects of one class as inks.

    Args:
        label: one of OBJECTS.
        poses: where they stand, in pixels of the finished picture.
        size: of the finished picture: width and height, pixels.
        rng: where each specimen's proportions come from.

    Returns:
        A picture of Ink values, OVERSAMPLING times as large.
    """
    canvas = Image.new("P", (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING), int(Ink.NOTHING))
    for pose in poses:
        x, y, half_width = (OVERSAMPLING * value for value in (pose.x, pose.y, pose.size))
        OBJECTS[label](Pen(canvas, replace(pose, x=x, y=y, size=half_width)), rng)
    return canvas


def _draw_objects(
    scene: Scene, poses: list[Pose], *, colours: tuple[Colour, Colour], rng: Generator
) -> Image.Image:
    """The objects in colour on nothing: RGBA."""
    canvas = draw_inks(scene.label, poses, size=(scene.width, scene.height), rng=rng)
    palette = _inks_palette(colours[0])
    if scene.texture != "plain":
        pitch = OVERSAMPLING * between(rng, 6.5, 11.0)
        share_HW = texture(scene.texture, size=canvas.size, pitch=pitch, rng=rng)
        level_HW = (share_HW * (TEXTURE_LEVELS - 1)).astype(np.uint8) + np.uint8(len(Ink))
        ink_HW = np.asarray(canvas)
        canvas = Image.fromarray(np.where(ink_HW == Ink.BODY, level_HW, ink_HW)).convert("P")
        palette += _texture_palette(*colours)
    canvas.putpalette(palette, "RGBA")
    return canvas.convert("RGBA").reduce(OVERSAMPLING)


def _inks_palette(colour: Colour) -> bytes:
    """RGBA of every Ink, in order."""
    shade = blend(colour, BLACK, 0.38) if sum(colour) > 150 else blend(colour, WHITE, 0.3)
    colours = {Ink.BODY: colour, Ink.SHADE: shade, **FIXED_INKS}
    return bytes(4) + b"".join(bytes((*colours[ink], 255)) for ink in list(Ink)[1:])


def _texture_palette(first: Colour, second: Colour) -> bytes:
    """RGBA of TEXTURE_LEVELS steps from one colour to the other."""
    steps = (blend(first, second, level / (TEXTURE_LEVELS - 1)) for level in range(TEXTURE_LEVELS))
    return b"".join(bytes((*step, 255)) for step in steps)


def _second_colour(colour: Colour, *, backdrop: Colour, rng: Generator) -> Colour:
    """What a texture is made of beside the object's own colour, which stays the one to name."""
    lighter = blend(colour, WHITE, between(rng, 0.6, 0.9))
    darker = blend(colour, BLACK, between(rng, 0.45, 0.65))
    wanted, other = (darker, lighter) if sum(colour) > 480 else (lighter, darker)
    lost = distance(wanted, backdrop) < MIN_TEXTURE_CONTRAST
    visible = distance(other, colour) > MIN_TEXTURE_CONTRAST
    return other if lost and visible else wanted
