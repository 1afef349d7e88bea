"""cluster.yaml, jobs/rayjob.yaml and the Dockerfile: valid, complete, and of the versions that are tested."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nst_batch

ROOT = Path(__file__).parents[2]
PLACEHOLDERS = ("REGISTRY", "FILE_SYSTEM", "REGION", "nst-batch-shared")


def loaded(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return values


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): pinned for name, pinned in pairs}


def test_every_direct_dependency_is_pinned_to_a_version_in_its_range() -> None:
    for text in requires("nst-batch") or ():
        found = Requirement(text)
        if found.marker and ("metrics" in text or "gcs" in text):
            continue
        assert found.specifier.contains(pins()[canonicalize_name(found.name)]), text


def test_the_pins_are_what_is_installed_here() -> None:
    installed = {name: version(name) for name in ("ray", "torch", "pyarrow", "duckdb", "pillow", "numpy", "typer")}
    assert {name: found.partition("+")[0] for name, found in installed.items()} == {
        name: pins()[name] for name in installed
    }


@pytest.mark.parametrize("name", ["cluster.yaml", "jobs/rayjob.yaml", "Dockerfile"])
def test_the_image_has_the_pinned_versions(name: str) -> None:
    text = (ROOT / name).read_text()
    tags = set(re.findall(r"nst-batch:(\S+)", text)) - {"…"}
    assert tags == {f"{nst_batch.__version__}-ray{pins()['ray']}-py311"}
    assert set(re.findall(r"rayproject/ray:(\S+)|rayVersion: \"(\S+)\"", text)) <= {
        (f"{pins()['ray']}-py311", ""),
        ("", pins()["ray"]),
    }


def test_the_dockerfile_builds_on_the_pinned_ray_with_the_constraints() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{pins()['ray']}-py311\n" in text
    assert "--constraint /opt/nst-batch/constraints.txt" in text
    kept = (ROOT / ".dockerignore").read_text().split()
    assert {"!constraints.txt", "!jobs", "!nst_batch", "!pyproject.toml", "!README.md", "!LICENSE"} <= set(kept)


@pytest.mark.parametrize("name", ["cluster.yaml", "jobs/rayjob.yaml"])
def test_every_placeholder_is_named_in_the_opening_comment(name: str) -> None:
    comment, _, rest = (ROOT / name).read_text().partition("\n\n" if name == "cluster.yaml" else "\napiVersion")
    for placeholder in PLACEHOLDERS:
        if placeholder in rest:
            assert placeholder in comment, placeholder


# For the launcher


def test_cluster_yaml_is_what_rays_launcher_accepts() -> None:
    import jsonschema
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(loaded("cluster.yaml"), schema)


def test_the_launcher_prepares_cluster_yaml_without_complaint() -> None:
    """Ray's own validation with its defaults filled in, in a process of its own: it talks."""
    code = (
        "import sys, yaml\n"
        "from ray.autoscaler._private.util import prepare_config, validate_config\n"
        "config = prepare_config(yaml.safe_load(open(sys.argv[1])))\n"
        "validate_config(config)\n"
        "print(config['head_node_type'], sorted(config['available_node_types']))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "cluster.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "head ['gpu', 'head']"


def test_the_head_computes_nothing_and_gpu_workers_are_spot_from_none_to_many() -> None:
    cluster = loaded("cluster.yaml")
    head, gpu = (cluster["available_node_types"][name] for name in ("head", "gpu"))
    assert (head["resources"], head["max_workers"]) == ({"CPU": 0}, 0)
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert gpu["min_workers"] == 0
    assert gpu["resources"]["GPU"] >= 1
    assert gpu["max_workers"] == cluster["max_workers"] > 1
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


# For KubeRay


def test_the_rayjob_resumes_scales_and_asks_for_a_token() -> None:
    job = loaded("jobs/rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    [gpu] = cluster["workerGroupSpecs"]
    assert (gpu["minReplicas"], gpu["replicas"]) == (0, 0)
    assert int(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30


def test_the_rayjob_asks_for_as_many_workers_as_it_may_have() -> None:
    spec = loaded("jobs/rayjob.yaml")["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:2] == ["python", "/opt/nst-batch/jobs/run_study.py"]
    assert (
        int(words[words.index("--max-workers") + 1]) == spec["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"]
    )


def test_every_pod_has_an_image_limits_and_the_shared_volume() -> None:
    cluster = loaded("jobs/rayjob.yaml")["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["image"]


@pytest.mark.parametrize("source", ["jobs/rayjob.yaml", "cluster.yaml"])
def test_the_command_in_the_file_is_one_that_the_program_understands(source: str) -> None:
    """The options that the files and their comments use exist."""
    from typer.main import get_command

    from nst_batch.cli.program import app

    known: set[str] = set()
    for name in ("run", "submit"):
        command = get_command(app).commands[name]  # type: ignore[attr-defined]
        known |= {option for parameter in command.params for option in parameter.opts}
    text = (ROOT / source).read_text()
    used = set(re.findall(r"--(?:content|style|out|device|max-workers|address)\b", text))
    assert used
    assert used <= known
