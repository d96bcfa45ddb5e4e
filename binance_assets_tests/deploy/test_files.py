"""The files in `deploy/` are valid, name what exists, hold no secret, and open no door.

Each check is also shown a file that it must refuse: the real one with a mistake in it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from binance_assets_tests.support.dagster_internals import config_problems, launcher_in
from binance_assets_tests.support.deployment import (
    DEPLOY,
    command_problem,
    compose_problems,
    container_file_problems,
    documents_of,
    manifest_problems,
    unit_problems,
)
from binance_assets_tests.support.environment import CHECKOUT

CONTAINER_FILE = DEPLOY / "Containerfile"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
INSTANCES = sorted(DEPLOY.glob("dagster-*.yaml"))
CHART = DEPLOY / "kubernetes" / "values.yaml"
MANIFESTS = [path for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")) if path != CHART]
VARIABLES = {
    "DAGSTER_POSTGRES_URL": "postgresql+psycopg2://ada:word@127.0.0.1:9/candles",
    "DAGSTER_CELERY_BROKER_URL": "redis://127.0.0.1:9/0",
    "BINANCE_ASSETS_IMAGE": "binance-assets:local",
    # As the chart sets them.
    "DAGSTER_K8S_INSTANCE_CONFIG_MAP": "dagster-instance",
    "DAGSTER_K8S_PG_PASSWORD_SECRET": "candles-postgres",
}

systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


# -- the image --------------------------------------------------------------------------------------------------------


def test_the_container_file_is_as_hadolint_wants_it() -> None:
    assert container_file_problems(CONTAINER_FILE.read_text()) == []


@pytest.mark.parametrize(("good", "bad"), [(":3.13-slim-bookworm", ""), ("WORKDIR /srv", "WORKDIR srv")])
def test_hadolint_refuses_a_container_file_with_a_mistake(good: str, bad: str) -> None:
    assert container_file_problems(CONTAINER_FILE.read_text().replace(good, bad))


def test_the_image_runs_as_a_numbered_user_who_is_not_root() -> None:
    last = CONTAINER_FILE.read_text().rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["1000:1000"]


def test_the_wheel_of_the_image_needs_no_file_that_the_build_does_not_see(tmp_path: Path) -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINER_FILE.read_text(), re.MULTILINE)
    seen = [line[1:] for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    names = " ".join(copied).split()
    assert sorted(names) == sorted(seen)
    for name in names:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "wheels", "."]
    subprocess.run(pip, cwd=tmp_path, check=True, capture_output=True, timeout=250)
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.startswith("binance_assets-")


# -- compose ----------------------------------------------------------------------------------------------------------


def test_the_compose_file_has_the_schema_of_compose_files() -> None:
    assert compose_problems(COMPOSE.read_text()) == []


@pytest.mark.parametrize(("good", "bad"), [("healthcheck:", "healtcheck:"), ("restart: unless-stopped", "restart: 1")])
def test_the_schema_refuses_a_compose_file_with_a_mistake(good: str, bad: str) -> None:
    assert compose_problems(COMPOSE.read_text().replace(good, bad))


def test_each_service_that_stays_has_a_health_check() -> None:
    assert [name for name, service in SERVICES.items() if "healthcheck" not in service] == ["bucket"]


def test_only_the_user_interface_has_a_port_and_only_on_loopback() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "webserver": ["127.0.0.1:3000:3000"]
    }


def test_the_images_are_pinned_by_a_tag() -> None:
    for service in SERVICES.values():
        assert re.fullmatch(r"[a-z/-]+:[a-z0-9.-]+", service["image"])
        assert not service["image"].endswith(":latest")


def test_each_file_that_the_compose_file_mounts_is_in_the_repository() -> None:
    mounts = {mount for service in SERVICES.values() for mount in service.get("volumes", ()) if mount.startswith(".")}
    files = [(COMPOSE.parent / mount.partition(":")[0]).resolve() for mount in mounts]
    assert [path for path in files if not path.is_file()] == []
    assert DEPLOY / "dagster-celery.yaml" in files


def test_the_example_of_the_environment_has_all_variables_and_no_secret() -> None:
    required = set(re.findall(r"\$\{([A-Z0-9_]+):\?", COMPOSE.read_text()))
    lines = (line for line in (COMPOSE.parent / "env.example").read_text().splitlines() if line and line[0] != "#")
    example = dict(line.split("=", 1) for line in lines)
    assert {name for name, value in example.items() if not value} == required


# -- commands ---------------------------------------------------------------------------------------------------------


def commands() -> Iterator[list[str]]:
    for service in SERVICES.values():
        yield [mounted(word) for word in service.get("command", ["true"])]
        yield service.get("healthcheck", {}).get("test", ["CMD", "true"])[1:]
    for path in UNITS:
        yield from (shlex.split(line) for line in re.findall(r"^ExecStart=(.*)$", path.read_text(), re.MULTILINE))


def mounted(word: str) -> str:
    """Return the path in the repository of a file that a container has; any other word as it is."""
    return word.replace("/srv/dagster", str(COMPOSE.parent)) if word.endswith(".yaml") else word


def test_programs_accept_the_arguments_with_which_containers_and_units_start_them() -> None:
    assert [problem for command in commands() if (problem := command_problem(command))] == []


@pytest.mark.parametrize(
    "command", ["dagster code-server start --prot 4000", "dagster-daemon health-check", "binance-assets ui --port x"]
)
def test_a_command_with_a_mistake_is_refused(command: str) -> None:
    assert command_problem(command.split())


# -- systemd ----------------------------------------------------------------------------------------------------------


@systemd
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit_and_finds_it_hardened(path: Path) -> None:
    assert unit_problems(path.name, path.read_text()) == []


@systemd
@pytest.mark.parametrize(
    ("good", "bad"),
    [("ExecStart=", "ExecStrat="), ("ProtectSystem=strict", "ProtectSystem=sometimes"), ("NoNewPrivileges=true\n", "")],
)
def test_systemd_refuses_a_unit_with_a_mistake(good: str, bad: str) -> None:
    path = UNITS[0]
    content = path.read_text().replace(good, bad)
    if not bad:
        content = re.sub(r"^(Protect|Restrict|System|Private|Capability).*\n", "", content, flags=re.MULTILINE)
    assert unit_problems(path.name, content)


# -- Dagster's instances ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", INSTANCES, ids=lambda path: path.name)
def test_dagster_and_the_classes_that_it_names_accept_the_instance(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "dagster.yaml")
    assert config_problems(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [("max_retries:", "max_retrys:"), ("container_kwargs:", "container_kwarg:"), ("postgres_url:", "postgres_uri:")],
)
def test_an_instance_with_a_mistake_is_refused(good: str, bad: str, tmp_path: Path) -> None:
    content = (DEPLOY / "dagster-docker.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text(content.replace(good, bad))
    assert config_problems(str(tmp_path))


def test_the_instances_differ_in_their_launcher_and_what_it_needs_only() -> None:
    postgres, docker = (
        yaml.safe_load((DEPLOY / f"dagster-{name}.yaml").read_text()) for name in ("postgres", "docker")
    )
    assert docker.pop("run_launcher")["class"] == "DockerRunLauncher"
    assert docker == postgres


def test_the_launcher_of_containers_is_made_from_the_file(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "dagster-docker.yaml", tmp_path / "dagster.yaml")
    launcher = launcher_in(str(tmp_path))
    assert launcher.image == "binance-assets:local"
    assert "BINANCE_ASSETS_LEDGER" in launcher.env_vars
    assert launcher.container_kwargs["auto_remove"] is True


# -- Prometheus -------------------------------------------------------------------------------------------------------


def metrics() -> set[str]:
    """Return the names of all metrics, without their prefix."""
    source = (CHECKOUT / "binance_assets" / "orchestration" / "scrape.py").read_text()
    return set(re.findall(r'_metric\(\s*"(\w+)"', source))


def test_the_page_about_operation_names_all_metrics() -> None:
    page = (CHECKOUT / "docs" / "operate.md").read_text().partition("### Metrics")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == metrics()


def test_the_alerts_name_metrics_that_exist_and_explain_themselves() -> None:
    (document,) = documents_of(DEPLOY / "prometheus" / "alerts.yaml")
    for rule in (rule for group in document["groups"] for rule in group["rules"]):
        assert {"alert", "expr", "for", "labels", "annotations"} == set(rule)
        named = set(re.findall(r"binance_assets_(\w+)", rule["expr"]))
        assert named
        assert named <= metrics()
        assert set(rule["annotations"]) == {"summary"}


def test_the_scrape_goes_to_the_loopback_interface() -> None:
    (document,) = documents_of(DEPLOY / "prometheus" / "scrape.yaml")
    (job,) = document["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["127.0.0.1:3000"]


# -- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_the_manifests_have_the_schema_of_kubernetes(path: Path) -> None:
    assert manifest_problems(documents_of(path)) == []


def test_the_schema_refuses_a_manifest_with_a_mistake() -> None:
    (policy,) = documents_of(DEPLOY / "kubernetes" / "network-policy.yaml")
    policy["spec"]["podSelectors"] = policy["spec"].pop("podSelector")
    assert manifest_problems([policy])


def test_the_example_of_the_secrets_has_none() -> None:
    secrets = documents_of(DEPLOY / "kubernetes" / "secret.example.yaml")
    assert {value for secret in secrets for value in secret["stringData"].values()} == {""}


def test_the_job_of_a_run_has_the_schema_of_kubernetes_and_what_the_run_needs(tmp_path: Path) -> None:
    job = job_of(yaml.safe_load(CHART.read_text()), tmp_path)
    assert manifest_problems([job]) == []
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example.com/binance-assets:0.2.0"
    secrets = [source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source]
    assert secrets == ["candles"]
    assert {"/srv/candles", "/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert container["resources"]["limits"]["memory"] == "1Gi"


def test_the_job_of_a_run_with_a_mistake_in_the_values_is_refused(tmp_path: Path) -> None:
    values = yaml.safe_load(CHART.read_text())
    configured = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    configured["podSpecConfig"]["securityContext"]["runAsUser"] = "candles"
    with pytest.raises(ValueError, match="candles"):
        job_of(values, tmp_path)


def job_of(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the Job that Dagster's launcher makes for a run, as its chart configures it with these values.

    The chart is not rendered. Its names of settings (``envSecrets``) become those of ``dagster.yaml``
    (``env_secrets``), which the chart's template does one by one.
    """
    # Here, because the other tiers, whose environments lack these packages, read this file as well.
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import construct_dagster_k8s_job
    from kubernetes.client import ApiClient

    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "nowhere",
                "clusters": [{"name": "nowhere", "cluster": {"server": "https://127.0.0.1:9"}}],
                "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
                "users": [{"name": "nobody", "user": {}}],
            }
        )
    )
    settings = values["runLauncher"]["config"]["k8sRunLauncher"]
    config = {
        "load_incluster_config": False,  # the only difference: there is no cluster
        "kubeconfig_file": str(kubeconfig),
        "image_pull_policy": settings["imagePullPolicy"],
        "fail_pod_on_run_failure": settings["failPodOnRunFailure"],
        "job_namespace": "candles",
        "service_account_name": "dagster",
        "dagster_home": "/opt/dagster/dagster_home",
        "instance_config_map": {"env": "DAGSTER_K8S_INSTANCE_CONFIG_MAP"},
        "postgres_password_secret": {"env": "DAGSTER_K8S_PG_PASSWORD_SECRET"},
        "run_k8s_config": {snake(name): value for name, value in settings["runK8sConfig"].items()},
    }
    instance = {"run_launcher": {"module": "dagster_k8s", "class": values["runLauncher"]["type"], "config": config}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(instance))
    assert config_problems(str(folder)) == []
    launcher = launcher_in(str(folder))
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    included = {
        "env_secrets": [secret["name"] for secret in deployment["envSecrets"]],
        "env": deployment["env"],
        "volumes": deployment["volumes"],
        "volume_mounts": deployment["volumeMounts"],
        "resources": deployment["resources"],
    }
    context = K8sContainerContext.create_for_run(dg.DagsterRun("spot_daily"), launcher, include_run_tags=True).merge(
        K8sContainerContext.create_from_config({"k8s": included})
    )
    image = "{repository}:{tag}".format(**deployment["image"])
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config(image, launcher),
        ["dagster", "api", "execute_run"],
        "dagster-run-1",
        user_defined_k8s_config=context.run_k8s_config,
        component="run_worker",
    )
    made: dict[str, Any] = ApiClient().sanitize_for_serialization(job)
    return made


def snake(name: str) -> str:
    return re.sub("([A-Z])", lambda letter: f"_{letter[0].lower()}", name)
