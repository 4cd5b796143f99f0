"""What the documents say of commands, files and modules is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from roclip_sanitize.cli import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "benchmarks/README.md", "jobs/README.md")
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
PACKAGE = ROOT / "roclip_sanitize"
MODULES = sorted(path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__"))
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
BENCHMARKS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text("utf-8")
)
PRESETS = sorted(path.stem for path in (ROOT / "benchmarks/sweep").glob("*.toml") if path.stem != "published")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")


def local_links(text: str) -> list[str]:
    """Targets of the links that lead into the repository, without their anchors."""
    targets = (target.partition("#")[0] for target in LINK.findall(text))
    return [target for target in targets if target and not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_shown(command: str) -> None:
    assert re.search(rf"\broclip {command}\b", (ROOT / "README.md").read_text("utf-8"))


def test_no_command_is_shown_that_there_is_not() -> None:
    code = re.findall(r"^\s*(?:\$ )?roclip ([a-z]+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert set(code) <= set(COMMANDS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_local_link_leads_somewhere(document: str) -> None:
    path = ROOT / document
    broken = [
        target for target in local_links(path.read_text("utf-8")) if not (path.parent / target).exists()
    ]
    assert not broken


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_its_place(name: str) -> None:
    assert re.search(rf"(?<![\w/]){re.escape(name)}\b", (ROOT / "ARCHITECTURE.md").read_text("utf-8"))


@pytest.mark.parametrize("name", PACKAGES)
def test_every_package_has_its_place(name: str) -> None:
    assert re.search(rf"\b{name}/", (ROOT / "ARCHITECTURE.md").read_text("utf-8"))


@pytest.mark.parametrize("name", [*BENCHMARKS, *PRESETS])
def test_every_benchmark_and_preset_is_shown(name: str) -> None:
    assert f"{name}`" in (ROOT / "benchmarks/README.md").read_text("utf-8")


def test_links_are_recognised() -> None:
    text = "[a](b.md) ![c](d/e.png) [f](https://g) [h](#i) [j](k.md#l) [m](n.md 'title')"
    assert local_links(text) == ["b.md", "d/e.png", "k.md", "n.md"]
