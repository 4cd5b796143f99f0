"""Ways of training, one to a module.

contract.py         what each of them is
clip.py             every pair as it is
roclip.py           windows in which pairs are matched anew
roclip_released.py  the same as its authors' code does it, for comparison
unimodal.py         pictures among pictures, captions among captions
phases.py           a warm-up and a gentle pass before a method
consensus.py        pairs whose halves do not go together are rewritten by those whose do
safeclip.py         pairs that agree, and the halves of those that do not
cleanclip.py par.py fine-tuning of a poisoned model on clean pairs
"""

from __future__ import annotations

from collections.abc import Callable

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.training.methods import safeclip
from roclip_sanitize.training.methods.cleanclip import Cleanclip
from roclip_sanitize.training.methods.clip import Clip
from roclip_sanitize.training.methods.consensus import Consensus
from roclip_sanitize.training.methods.contract import Method, Surroundings
from roclip_sanitize.training.methods.par import Par
from roclip_sanitize.training.methods.phases import Phased, phase_starts
from roclip_sanitize.training.methods.roclip import Roclip
from roclip_sanitize.training.methods.roclip_released import RoclipReleased
from roclip_sanitize.training.methods.unimodal import Unimodal

METHODS: dict[str, Callable[..., Method]] = {
    "clip": Clip,
    "roclip": Roclip,
    "roclip_released": RoclipReleased,
    "unimodal": Unimodal,
    "safeclip": safeclip.Safeclip,
    "consensus": Consensus,
    "cleanclip": Cleanclip,
    "par": Par,
}
TAKE_OVER = ("roclip", "safeclip", "consensus")  # those that do something when they begin


def open_method(run: Surroundings) -> Method:
    """The method that a run asks for, with what comes before it.

    Raises:
        ConfigError: it cannot work with the run's settings.
    """
    settings = run.settings
    default = safeclip.PHASES if settings.method == "safeclip" else (0.0, 0.0)
    told = (settings.warm_up_for, settings.gentle_for)
    warm_up, gentle = (usual if share is None else share for usual, share in zip(default, told, strict=True))
    gentle_from, method_from = phase_starts(run.total_steps, warm_up=warm_up, gentle=gentle)
    if method_from >= run.total_steps:
        raise ConfigError(f"warm-up-for and gentle-for leave {settings.method} no step to train in")
    begins = {"start": method_from} if settings.method in TAKE_OVER else {}
    method = METHODS[settings.method](run, **begins)
    if not method_from:
        return method
    return Phased(run, method, gentle_from=gentle_from, method_from=method_from)
