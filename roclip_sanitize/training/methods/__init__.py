"""Ways of training, one to a module.

contract.py         what each of them is
clip.py             every pair as it is
roclip.py           windows in which pairs are matched anew
roclip_released.py  the same as its authors' code does it, for comparison
unimodal.py         pictures among pictures, captions among captions
phases.py           a warm-up and a gentle pass before a method
safeclip.py         pairs that agree, and the halves of those that do not
cleanclip.py par.py fine-tuning of a poisoned model on clean pairs
"""

from __future__ import annotations

from collections.abc import Callable

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.training.methods import safeclip
from roclip_sanitize.training.methods.cleanclip import Cleanclip
from roclip_sanitize.training.methods.clip import Clip
from roclip_sanitize.training.methods.contract import Method, Surroundings
from roclip_sanitize.training.methods.par import Par
from roclip_sanitize.training.methods.phases import Phased
from roclip_sanitize.training.methods.roclip import Roclip
from roclip_sanitize.training.methods.roclip_released import RoclipReleased
from roclip_sanitize.training.methods.unimodal import Unimodal

METHODS: dict[str, Callable[[Surroundings], Method]] = {
    "clip": Clip,
    "roclip": Roclip,
    "roclip_released": RoclipReleased,
    "unimodal": Unimodal,
    "safeclip": safeclip.Safeclip,
    "cleanclip": Cleanclip,
    "par": Par,
}


def open_method(run: Surroundings) -> Method:
    """The method that a run asks for, with what comes before it.

    Raises:
        ConfigError: it cannot work with the run's settings.
    """
    settings = run.settings
    warm_up, gentle = settings.warm_up_for, settings.gentle_for
    if settings.method == "safeclip":
        warm_up = safeclip.WARM_UP if warm_up is None else warm_up
        gentle = safeclip.GENTLE if gentle is None else gentle
        if round((warm_up + gentle) * run.total_steps) >= run.total_steps:
            raise ConfigError("warm-up-for and gentle-for leave safeclip no step to train in")
        start = round(warm_up * run.total_steps) + round(gentle * run.total_steps)
        return Phased(run, safeclip.Safeclip(run, start=start), warm_up=warm_up, gentle=gentle)
    method = METHODS[settings.method](run)
    if warm_up or gentle:
        return Phased(run, method, warm_up=warm_up or 0.0, gentle=gentle or 0.0)
    return method
