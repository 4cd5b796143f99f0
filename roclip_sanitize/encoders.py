"""What turns pictures and captions into vectors, seen from outside.

    open_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")   any open_clip model and its weights
    open_encoder("open_clip:roclip-rn-64")                 random weights, from the seed
    open_encoder("runs/demo/arms/undefended/model")        a model that this package trained
    open_encoder("plain")                                  learns nothing, so nothing can be planted in it
    open_encoder("textures")                               nor does this one; pictures only

An encoder is named by the digest of its weights: vectors of two encoders never mix. No torch
here unless a CLIP is opened: drivers and readers of stores need the facts, not the model.
"""

from __future__ import annotations

from roclip_sanitize.encoder_facts import AskedPrecision, Encoder

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
        spec: "plain", "textures", "open_clip:NAME", "open_clip:NAME/WEIGHTS" or a folder made by training.
        seed: of the random weights, where no weights are named.
        device: "" takes a GPU where there is one.
        precision: "auto" is bfloat16 on a GPU and float32 elsewhere. What learnt nothing has none.
        compiled: let torch.compile make the towers quicker. What learnt nothing has nothing to compile.

    Raises:
        ConfigError: the specification, the model's name or its weights are unknown, or the model cannot
            be compiled here.
        MismatchError: the compiled model answers otherwise than the model.
    """
    if spec == PLAIN:
        from roclip_sanitize.features import PlainEncoder

        return PlainEncoder()
    if spec == TEXTURES:
        from roclip_sanitize.textures import TextureEncoder

        return TextureEncoder()
    from roclip_sanitize.encoder import ClipEncoder

    return ClipEncoder(spec, seed=seed, device=device, precision=precision, compiled=compiled)
