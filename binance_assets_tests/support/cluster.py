"""A cluster on one machine: code server, daemon, web server, and workers on hosts that are namespaces of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import dagster as dg
import psutil
import pytest
import requests
from ruamel.yaml import YAML

from binance_assets.orchestration.dagster_internals.instance import open_instance_in
from binance_assets_tests.support.dagster_dev import free_port
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.other_worlds import in_container
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.user_interface import LOCATIONS

_START_SECONDS: Final = 240
_STOP_SECONDS: Final = 60
_PROGRAMS: Final = Path(sys.executable).parent

WORKSPACE: Final = """\
load_from:
  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: binance_assets}}
"""


def write_instance(home: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the ``dagster.yaml`` of a machine: that of ``deploy/``, with other values in some of its sections."""
    yaml = YAML(typ="safe", pure=True)
    config = yaml.load(CHECKOUT / "deploy" / "dagster-celery.yaml")
    for section, values in changes.items():
        place = config
        for name in section.split("."):
            place = place[name]
        place.update(values)
    home.mkdir()
    yaml.dump(config, home / "dagster.yaml")


class Cluster:
    """The processes of a cluster. Each host has a ``DAGSTER_HOME`` of its own; the lake is common to all.

    Args:
        folder: The working folder of all processes, with ``universe.yaml``.
        environment: The environment of all processes, without ``DAGSTER_HOME``.
        changes: Other values in sections of ``deploy/dagster-celery.yaml``.

    Attributes:
        url: The address of the web server.
        folder: The working folder.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], changes: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder = folder
        self._environment = dict(environment)
        self._changes = changes
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._instance: dg.DagsterInstance | None = None
        self._ports = {name: free_port() for name in ("code", "web")}
        self.url = f"http://127.0.0.1:{self._ports['web']}"
        (folder / "workspace.yaml").write_text(WORKSPACE.format(port=self._ports["code"]))

    def home(self, host: str) -> Path:
        """Return the ``DAGSTER_HOME`` of a host, which is created if it is not there."""
        home = self.folder / f"home-{host}"
        if not home.exists():
            write_instance(home, self._changes)
        return home

    def start_servers(self) -> None:
        """Start code server and web server, and wait until they respond."""
        port = str(self._ports["code"])
        self._start(
            "code", "dagster", "code-server", "start", "-h", "127.0.0.1", "-p", port, "-m", "binance_assets.definitions"
        )
        self._start(
            "web", "dagster-webserver", "-h", "127.0.0.1", "-p", str(self._ports["web"]), "-w", "workspace.yaml"
        )
        until(_START_SECONDS, self._is_loaded)

    def start_daemon(self) -> None:
        """Start the daemon, if it does not run."""
        if "daemon" not in self._processes:
            self._start("daemon", "dagster-daemon", "run", "-w", "workspace.yaml")

    def start_worker(self, host: str, concurrency: int = 2) -> None:
        """Start a worker on a host of its own: host name and processes are not those of this machine."""
        words = ["celery", "-A", "binance_assets.orchestration.worker", "worker", "--concurrency", str(concurrency)]
        self._start(host, *words, container=in_container(host))

    def is_running(self, name: str) -> bool:
        """Return whether a process that was started runs: ``code``, ``web``, ``daemon``, or that of a host."""
        return self._processes[name].poll() is None

    def kill(self, name: str) -> None:
        """Kill a process with all that it started; that of a host with all its processes, as a power cut does."""
        process = self._processes.pop(name)
        _kill(process)
        process.wait(_STOP_SECONDS)

    def terminate_worker(self, host: str) -> None:
        """Send SIGTERM to the worker of a host, as systemd does, and wait until it has ended."""
        process = self._processes.pop(host)
        (worker,) = psutil.Process(process.pid).children()
        worker.terminate()
        process.wait(_STOP_SECONDS)

    def process_of_run(self, host: str, number: int) -> psutil.Process:
        """Return a process of a host by the number that it has there."""
        for child in psutil.Process(self._processes[host].pid).children(recursive=True):
            with suppress(OSError):
                lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
                if next(line for line in lines if line.startswith("NSpid:")).split()[-1] == str(number):
                    return child
        raise AssertionError(f"{host} has no process {number}")

    def instance(self) -> dg.DagsterInstance:
        """Return the instance, as a process beside the daemon sees it; it connects to Postgres for each query."""
        if self._instance is None:
            home = self.home("main")
            with pytest.MonkeyPatch.context() as patch:
                for name, value in self._environment.items():
                    patch.setenv(name, value)
                self._instance = open_instance_in(home, home)
                self._instance.get_runs(limit=1)  # what reads the environment is made at the first use
        return self._instance

    def log(self, name: str) -> str:
        """Return what a process has printed."""
        return (self.folder / f"{name}.log").read_text()

    def stop(self) -> None:
        """Kill all processes with all that they started, the last that was started first."""
        for process in list(self._processes.values())[::-1]:
            _kill(process)
        for process in self._processes.values():
            process.wait(_STOP_SECONDS)
        if self._instance is not None:
            self._instance.dispose()

    def _start(self, name: str, program: str, *words: str, container: list[str] | None = None) -> None:
        home = self.home(name if container else "main")
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*(container or []), str(_PROGRAMS / program), *words],
                cwd=self.folder,
                env=self._environment | {"DAGSTER_HOME": str(home)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _is_loaded(self) -> bool:
        try:
            response = requests.post(f"{self.url}/graphql", json={"query": LOCATIONS}, timeout=20).json()
        except requests.RequestException:
            return False
        (entry,) = response["data"]["workspaceOrError"]["locationEntries"]
        return (entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its children, also those that are left where it has ended already."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True)[::-1]:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
