"""What turns pictures and captions into vectors, seen from outside.

    open_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")   any open_clip model and its weights
    open_encoder("open_clip:roclip-rn-64")                 random weights, from the seed
    open_encoder("runs/demo/arms/undefended")              a model that this package trained
    open_encoder("plain")                                  learns nothing, so nothing can be planted in it
    open_encoder("textures")                               nor does this one; pictures only

An encoder is named by the digest of its weights: vectors of two encoders never mix. No torch
here unless a CLIP is opened: drivers and readers of stores need the facts, not the model.
"""

from __future__ import annotations

from pathlib import Path

from roclip_sanitize.encoder_facts import (
    MODEL_FILE,
    MODEL_FOLDER,
    OPEN_CLIP,
    AskedPrecision,
    Encoder,
    weights_folder,
)
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.remote import source_name

PLAIN = "plain"
TEXTURES = "textures"
UNLEARNT = (PLAIN, TEXTURES)


def open_encoder(
    spec: str,
    *,
    seed: int = 0,
    device: str = "",
    precision: AskedPrecision = "auto",
    compiled: bool = False,
) -> Encoder:
    """Open an encoder by its specification.

    Args:
        spec: "plain", "textures", "open_clip:NAME", "open_clip:NAME/WEIGHTS" or a training: its folder, the
            model/ in it, or the weights there.
        seed: of the random weights, where no weights are named.
        device: "" takes a GPU where there is one.
        precision: "auto" is bfloat16 on a GPU and float32 elsewhere. What learnt nothing has none.
        compiled: let torch.compile make the towers quicker. What learnt nothing has nothing to compile.

    Raises:
        ConfigError: the specification, the model's name or its weights are unknown, or the model cannot
            be compiled here.
        DataError: its weights are broken, or could not be downloaded.
        MismatchError: the weights are of another model, or the compiled model answers otherwise than the
            model.
    """
    if spec == PLAIN:
        from roclip_sanitize.features import PlainEncoder

        return PlainEncoder()
    if spec == TEXTURES:
        from roclip_sanitize.textures import TextureEncoder

        return TextureEncoder()
    if not spec.startswith(OPEN_CLIP):
        folder = weights_folder(Path(spec))
        if folder is None:
            raise ConfigError(
                f"encoder {spec!r} is none of 'plain', 'textures', 'open_clip:NAME[/WEIGHTS]' and "
                f"a training's folder: neither {spec} nor its {MODEL_FOLDER}/ has a {MODEL_FILE}"
            )
        spec = source_name(folder)  # by whichever path it was told, its stores name it alike
    from roclip_sanitize.encoder import ClipEncoder

    return ClipEncoder(spec, seed=seed, device=device, precision=precision, compiled=compiled)
