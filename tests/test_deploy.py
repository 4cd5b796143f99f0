"""Files that others read: manifests, images, dashboards. Each checked as far as it can be without its reader.

KubeRay's own schema is not at hand: the fields that its API wants are listed here by hand.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from roclip_sanitize.cli import command_tree
from roclip_sanitize.cli.run_file import file_problems, read_run_file
from roclip_sanitize.cli.submit import arguments_of
from roclip_sanitize.status.metrics import COUNTERS, FAILURES, GAUGES, PREFIX
from roclip_sanitize.training.watching import cluster

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "jobs" / "deploy"
QUANTITY = re.compile(r"\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?")


def read_yaml(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text("utf-8"))


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return dict(manifest["spec"] if manifest["kind"] == "RayCluster" else manifest["spec"]["rayClusterSpec"])


@pytest.mark.parametrize("recipe", sorted((ROOT / "jobs/recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_are_run_files_that_name_themselves(recipe: Path) -> None:
    assert list(file_problems(read_run_file(recipe), command_tree())) == []
    assert f"roclip ingest --config jobs/recipes/{recipe.name}" in recipe.read_text("utf-8")
    assert f"recipes/{recipe.name}" in (ROOT / "jobs/README.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_manifests_have_what_kuberay_wants(name: str) -> None:
    manifest = read_yaml(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
    spec = cluster_of(manifest)
    names = [group["groupName"] for group in spec["workerGroupSpecs"]]
    assert len(set(names)) == len(names)
    for group in spec["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["image"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            for amounts in container["resources"].values():
                assert all(QUANTITY.fullmatch(amount) for amount in amounts.values())


def test_the_cluster_wants_a_token_from_a_secret() -> None:
    spec = cluster_of(read_yaml("raycluster.yaml"))
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        environment = {each["name"]: each for each in group["template"]["spec"]["containers"][0]["env"]}
        assert environment["RAY_AUTH_MODE"]["value"] == "token"
        assert set(environment["RAY_AUTH_TOKEN"]) == {"name", "valueFrom"}


def test_the_rayjob_runs_a_command_that_parses() -> None:
    program, *stage = shlex.split(read_yaml("rayjob.yaml")["spec"]["entrypoint"])
    assert program == "roclip"
    assert arguments_of(stage) == stage


def test_manifests_name_the_ray_that_is_locked() -> None:
    locked = re.search(r"^ray(?:\[[^\]]*\])?==(\S+)", (ROOT / "requirements.lock").read_text("utf-8"), re.M)
    assert locked
    for name in ("raycluster.yaml", "rayjob.yaml"):
        assert cluster_of(read_yaml(name))["rayVersion"] == locked[1]


@pytest.mark.slow
def test_the_launcher_file_is_one_to_ray() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(read_yaml("launcher.yaml")))


def test_the_image_copies_what_there_is() -> None:
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {word for word, _ in steps} <= {"ARG", "FROM", "RUN", "WORKDIR", "ENV", "COPY", "USER", "CMD"}
    assert [word for word, _ in steps][:2] == ["ARG", "FROM"]
    sources = [source for word, rest in steps if word == "COPY" for source in rest.split()[:-1]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert ["USER", "ray"] in steps


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))
    text = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    gauges = {PREFIX + name for name in GAUGES} | {cluster.PREFIX + name for name in cluster.GAUGES}
    counters = {PREFIX + name for name in (*COUNTERS, FAILURES)} | {cluster.PREFIX + cluster.SAMPLES}
    known = {f"ray_{name}" for name in gauges} | {f"ray_{name}_total" for name in counters}
    shown = set(re.findall(r"ray_\w+", text))
    assert shown
    assert shown <= known
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(set(identifiers)) == len(identifiers)


def test_the_clusters_page_shows_commands_that_there_are() -> None:
    page = (ROOT / "jobs" / "README.md").read_text("utf-8")
    shown = set(re.findall(r"roclip ([a-z-]+)", page))
    assert shown <= set(command_tree().commands)
    named = set(re.findall(r"\]\(([\w/.]+)\)", page))
    assert [name for name in named if not (ROOT / "jobs" / name).exists()] == []
    files = {path.name for path in (ROOT / "jobs").glob("*.py")} - {"__init__.py"}
    assert files <= named
