"""CLIP's two towers. The only module that imports open_clip.

Importing this module registers the package's own small models with open_clip, so that
``open_clip.create_model("roclip-rn-64", pretrained=…/weights.safetensors)`` works.

Dimension key: N pictures or captions, D width, H = W side in pixels, L tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from roclip_sanitize.backoff import MicroBatches
from roclip_sanitize.compiling import compiled_tower
from roclip_sanitize.encoder_facts import (
    MODEL_FILE,
    MODEL_FOLDER,
    OPEN_CLIP,
    WEIGHTS_FILE,
    AskedPrecision,
    EncoderFacts,
    weights_folder,
)
from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.images import Fit
from roclip_sanitize.runfiles import read_told, write_json
from roclip_sanitize.storage import here
from roclip_sanitize.told import one_line

open_clip.add_model_config(Path(__file__).parent / "models")

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, open_clip's default
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
NOT_WEIGHTS = (SafetensorError, UnpicklingError, EOFError)  # what reading a file says that was cut or made up
PROBES = 32  # pairs that a compiled model is compared on; for fewer than 16 torch compiles another program


class ClipEncoder:
    """An open_clip model in evaluation mode."""

    def __init__(
        self,
        spec: str,
        *,
        seed: int = 0,
        device: str = "",
        precision: AskedPrecision = "auto",
        compiled: bool = False,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if precision == "auto":
            precision = "bfloat16" if self.device.type == "cuda" else "float32"
        self.model, self.model_name, fit = load_clip(spec, seed=seed)
        self.model = self.model.to(self.device, memory_format=torch.channels_last).eval()
        self._tokenize = tokenizer_for(self.model_name)
        release = torch.cuda.empty_cache if self.device.type == "cuda" else None
        self._pictures_at_once, self._captions_at_once = MicroBatches(release), MicroBatches(release)
        side, _ = _side_and_context(self.model_name)
        self.facts = EncoderFacts(
            name=spec,
            digest=weights_digest(self.model),
            joint=True,
            side=side,
            fit=fit,
            precision=precision,
        )
        if compiled:
            self._compile()

    def encode_images(self, image_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Encoder.encode_images."""
        return self._pictures_at_once.encode(self._encode_images, image_NHW3)

    def encode_captions(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """See Encoder.encode_captions."""
        distinct = list(dict.fromkeys(captions))  # web captions repeat, and tokenising is slow
        place = {caption: number for number, caption in enumerate(distinct)}
        tokens_NL = self._tokenize(distinct)[[place[caption] for caption in captions]]
        return self._captions_at_once.encode(self._encode_tokens, tokens_NL.numpy())

    def _encode_images(self, image_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._inference():
            pixels = normalise_pixels(self._moved(image_NHW3).permute(0, 3, 1, 2))
            return _unit_rows(self.model.encode_image(pixels))

    def _encode_tokens(self, tokens_NL: NDArray[np.int64]) -> NDArray[np.float32]:
        with self._inference():
            return _unit_rows(self.model.encode_text(self._moved(tokens_NL)))

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients, and matrices multiplied in the precision of the facts."""
        low = self.facts.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            yield

    def _compile(self) -> None:
        """Replace both towers, tried out on pictures of noise and a few captions."""
        side = self.facts.side
        image_NHW3 = np.random.default_rng(0).integers(0, 256, (PROBES, side, side, 3)).astype(np.uint8)
        probe_NL = self._tokenize([f"picture {number}" for number in range(PROBES)]).numpy()
        with self._inference():  # probes are made here: other tensors than a batch's would compile twice
            pixels = normalise_pixels(self._moved(image_NHW3).permute(0, 3, 1, 2))
            tokens_NL = self._moved(probe_NL)
            self.model.encode_image = compiled_tower(
                self.model.encode_image, pixels, name=f"{self.model_name}, pictures"
            )
            self.model.encode_text = compiled_tower(
                self.model.encode_text, tokens_NL, name=f"{self.model_name}, captions"
            )

    def _moved(self, array: NDArray[Any]) -> torch.Tensor:
        """To the model's device. From pinned memory the copy to a GPU need not be waited for."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def load_clip(spec: str, *, seed: int = 0) -> tuple[Any, str, Fit]:
    """Make an open_clip model: (model, its name, how it wants pictures made square).

    Args:
        spec: "open_clip:NAME", "open_clip:NAME/WEIGHTS", or what weights_folder() finds weights by.
        seed: of the random weights, where no weights are named.

    Raises:
        ConfigError: no such model, folder or weights.
        DataError: the weights are broken, or could not be downloaded.
        MismatchError: they are of another model.
    """
    if spec.startswith(OPEN_CLIP):
        name, _, weights = spec.removeprefix(OPEN_CLIP).partition("/")
        require_model(name)
        fit: Fit = "squash" if name.startswith("roclip-") else "crop"
        return _create(name, weights or None, seed), name, fit
    folder = weights_folder(Path(spec))
    if folder is None:
        raise ConfigError(
            f"{spec!r} is no CLIP, wanted a training's folder or open_clip:NAME/WEIGHTS; "
            f"neither {spec} nor its {MODEL_FOLDER}/ has a {MODEL_FILE}"
        )
    saved = read_told(folder / MODEL_FILE)
    require_model(saved["model"])
    return _create(saved["model"], str(here(folder / WEIGHTS_FILE)), seed), saved["model"], saved["fit"]


def new_clip(name: str, *, seed: int) -> Any:
    """An open_clip model with random weights that depend on nothing but the seed."""
    require_model(name)
    return _create(name, None, seed)


def save_clip(folder: Path, model: Any, *, name: str, fit: Fit) -> None:
    """Write weights that open_clip.create_model(name, pretrained=FOLDER/weights.safetensors) loads."""
    from safetensors.torch import save

    from roclip_sanitize.runfiles import write_bytes

    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    write_bytes(folder / WEIGHTS_FILE, save(state))
    write_json(folder / MODEL_FILE, {"model": name, "fit": fit, "digest": weights_digest(model)})


def tokenizer_for(name: str) -> Any:
    """The tokenizer of a model: list of captions → (N, L) int64 token ids, 0 after the end token."""
    return open_clip.get_tokenizer(name)


def word_ends(name: str) -> NDArray[np.bool_]:
    """Which tokens of a model's tokenizer are the last of a word: (V,), for the whole vocabulary.

    Raises:
        ConfigError: the tokenizer is not CLIP's, whose tokens say so themselves.
    """
    spelled = getattr(tokenizer_for(name), "decoder", None)
    if not isinstance(spelled, dict):
        raise ConfigError(f"the tokenizer of {name} does not say where words end, as CLIP's does")
    return np.array([spelled[token].endswith("</w>") for token in range(len(spelled))])


def own_transform(side: int) -> Any:
    """open_clip's own way from a PIL image to normalised floats (3, H, W): the yardstick of decoding."""
    return open_clip.transform.image_transform(side, is_train=False)


def imagenet_prompts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """ImageNet-1k's 1,000 class names in the order of its classes, and OpenAI's 80 templates with {}."""
    templates = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
    return tuple(open_clip.IMAGENET_CLASSNAMES), templates


def image_side(name: str) -> int:
    """Pixels that a model wants a side."""
    return _side_and_context(name)[0]


def require_model(name: str) -> None:
    """Refuse a model name that open_clip does not know.

    Raises:
        ConfigError: with the nearest known names.
    """
    known = open_clip.list_models()
    if name in known:
        return
    import difflib

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or ["roclip-rn-64", "ViT-B-32", "RN50"]
    raise ConfigError(f"open_clip has no model {name!r}; did you mean {', '.join(near)}?")


def normalise_pixels(pixels_N3HW: torch.Tensor) -> torch.Tensor:
    """uint8 0…255 or float 0…1 → float, OpenAI's mean and deviation, channels last."""
    if pixels_N3HW.dtype == torch.uint8:
        pixels_N3HW = pixels_N3HW.float() / 255
    mean, std = (_channels(values, pixels_N3HW.device) for values in (IMAGE_MEAN, IMAGE_STD))
    return ((pixels_N3HW - mean) / std).contiguous(memory_format=torch.channels_last)


def _channels(values: Sequence[float], device: torch.device) -> torch.Tensor:
    """(3, 1, 1) float32, filled on the device: a copy from the host would wait for all of a GPU's work."""
    return torch.stack([torch.full((1, 1), value, device=device) for value in values])


def weights_digest(model: Any) -> str:
    """Sixteen hex digits that name a model's weights."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _create(name: str, weights: str | None, seed: int) -> Any:
    import logging

    if weights:
        _require_weights(name, weights)
    quiet = logging.getLogger()
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)  # open_clip warns of random weights; here they are asked for
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return open_clip.create_model(name, pretrained=weights)
    except NOT_WEIGHTS as error:
        raise DataError(f"{weights} holds no weights: {one_line(error)}") from error
    except RuntimeError as error:
        if weights and "state_dict" in str(error):
            raise MismatchError(f"weights {weights} do not fit model {name}") from error
        if weights and "download" in str(error):
            raise DataError(f"weights {weights!r} of {name} could not be downloaded: {error}") from error
        raise
    finally:
        quiet.setLevel(level)


def _require_weights(name: str, weights: str) -> None:
    """Refuse weights that are neither a tag of the model nor a file.

    Raises:
        ConfigError: with the tags that the model has.
    """
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags and not Path(weights).is_file():
        known = ", ".join(tags) or "none"
        raise ConfigError(f"weights {weights!r} are no file and no tag of {name}, which has {known}")


def _side_and_context(name: str) -> tuple[int, int]:
    config = open_clip.get_model_config(name)
    side = config["vision_cfg"].get("image_size", 224)
    side = side[0] if isinstance(side, (tuple, list)) else side
    return int(side), int(config["text_cfg"].get("context_length", 77))


def _unit_rows(vectors: torch.Tensor) -> NDArray[np.float32]:
    """In float32, whatever the model computed in: bfloat16's rounding would leave rows off by 0.1 %."""
    array: NDArray[np.float32] = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return array
