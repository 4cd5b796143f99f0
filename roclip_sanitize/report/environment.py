"""The templates' surroundings: everything is escaped, and nothing may be undefined. Door to jinja2."""

from __future__ import annotations

import base64
from importlib import resources
from typing import Any

from roclip_sanitize.report import words


def render(folder: str, template: str, **context: Any) -> str:
    """A page from a template, with this package's style in it.

    Args:
        folder: of roclip_sanitize, that holds the template; those of this package may be included.
        template: its name.
        context: what it shows; texts are escaped, and ``words`` and ``style`` are there already.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("roclip_sanitize", name) for name in (folder, "report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "picture": _picture_source,
        "trusted": Markup,  # only for what this package made itself: style and drawings
        "sentence": words.full_sentence,
    }
    environment.globals["words"] = words
    style = resources.files("roclip_sanitize.report").joinpath("page.css").read_text("utf-8")
    return environment.get_template(template).render(style=style, **context).strip() + "\n"


def _picture_source(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"
