"""The files of examples/ for clusters parse, and each `climb` line in them and in docs/clusters.md is one of ours."""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from openclimb.cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def texts(value: Any) -> Iterator[str]:
    """Give all texts in what a YAML file holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)


def climb_lines(text: str) -> list[list[str]]:
    """Return the arguments of the `climb` commands in a shell's text."""
    joined = re.sub(r"\\\n|(\|\||&&)\s*\n", r"\1 ", text)
    parts = [part.strip() for line in joined.splitlines() for part in re.split(r"\|\||&&|;", line)]
    return [shlex.split(part, comments=True)[1:] for part in parts if part.startswith("climb ")]


def check_lines(lines: list[list[str]], work: Path) -> None:
    """Run `climb init` of the lines and parse the others."""
    for number, line in enumerate(lines):
        name, *rest = [word.replace("/data/", f"{work}/") for word in line]
        module, _, attribute = COMMANDS[name][0].partition(":")
        if name == "init":
            rest[0] = str(work / f"{number}")
            assert main([name, *rest]) == 0
        else:
            getattr(import_module(f"openclimb.cli.{module}"), attribute).make_context(name, rest)


def read(name: str) -> list[Any]:
    yaml = pytest.importorskip("yaml", reason="comes with the extra ray")
    return list(yaml.safe_load_all((EXAMPLES / name).read_text(encoding="utf-8")))


def test_kuberay_is_a_claim_and_a_job_of_our_commands(tmp_path: Path) -> None:
    claim, job = read("kuberay.yaml")
    assert (claim["kind"], job["kind"], job["apiVersion"]) == ("PersistentVolumeClaim", "RayJob", "ray.io/v1")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    cluster = job["spec"]["rayClusterSpec"]
    assert pinned
    assert cluster["rayVersion"] == pinned[1]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in pods):
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/data"}]
    lines = [line for text in texts(job) for line in climb_lines(text)]
    assert [line[0] for line in lines] == ["run", "init"]
    check_lines(lines, tmp_path)


def test_skypilot_is_a_task_of_our_commands(tmp_path: Path) -> None:
    (task,) = read("skypilot.yaml")
    assert set(task) <= {"name", "num_nodes", "workdir", "resources", "volumes", "setup", "run"}
    assert list(task["volumes"]) == ["/data"]
    lines = climb_lines(task["run"])
    assert [line[0] for line in lines] == ["init", "run"]
    check_lines(lines, tmp_path)


def test_the_page_on_clusters_shows_our_commands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in climb_lines(block)]
    assert lines
    check_lines(lines, tmp_path)
