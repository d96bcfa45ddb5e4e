"""``make fuzz``: sends mutated inputs to every border for as long as asked, and counts them.

Each border runs in a process of its own with bounded memory, because an input may also end the process that reads it.
An input follows from the border's name, the seed, and its number, so each finding can be repeated::

    python -m binance_assets_tests.hostile.fuzz --seconds 600
    python -m binance_assets_tests.hostile.fuzz --border page --seed 7 --first 1234 --inputs 1
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import multiprocessing.pool
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final

import psutil

from binance_assets_tests.support.borders import BORDERS, Border, Read
from binance_assets_tests.support.mutations import mutate

# The address space that a border may use beyond what it has after it read its samples.
_MEMORY: Final = 2 * 2**30

# A border that needs longer for one input hangs. Only the process time of the reader counts.
_INPUT_SECONDS: Final = 10

_FINDINGS_KEPT: Final = 5

VALUE: Final = "a value"
ERROR: Final = "the border's error"


@dataclass(frozen=True, slots=True)
class Job:
    """The inputs of one border.

    Attributes:
        border: Name of the border.
        seed: Seed of the inputs.
        first: Number of the first input.
        inputs: How many inputs to read; None for as many as fit into ``seconds``.
        seconds: When to stop.
        folder: A folder for the border's files.
    """

    border: str
    seed: int
    first: int
    inputs: int | None
    seconds: float
    folder: Path


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the inputs of one border.

    Attributes:
        border: Name of the border.
        inputs: How many inputs were read.
        values: How many of them gave a value; the others gave the border's error.
        findings: What was neither, one text per finding.
    """

    border: str
    inputs: int
    values: int
    findings: tuple[str, ...]


def _foreign(content: bytes) -> None:
    if content != b"abc":
        raise ArithmeticError(len(content))


def _dying(content: bytes) -> None:
    if len(content) > 3:
        os.abort()


def _sample() -> list[bytes]:
    return [b"abc"]


FAULTY: Final = {
    border.name: border
    for border in (Border("foreign error", _sample, lambda _: _foreign), Border("dies", _sample, lambda _: _dying))
}
"""Borders that must be found."""


def input_of(border: Border, samples: Sequence[bytes], seed: int, number: int) -> bytes:
    """Return the input with a number."""
    return mutate(random.Random(f"{border.name} {seed} {number}"), samples)


def outcome_of(border: Border, read: Read, content: bytes) -> str:
    """Return what became of an input: :data:`VALUE`, :data:`ERROR`, or the name of an error of another kind."""
    try:
        read(content)
    except border.errors:
        return ERROR
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"
    return VALUE


def fuzz(borders: Sequence[Border], seed: int, first: int, inputs: int | None, seconds: float) -> list[Report]:
    """Send inputs to borders, two at a time.

    Args:
        borders: The borders.
        seed: Seed of the inputs.
        first: Number of the first input.
        inputs: How many inputs each border reads; None for as many as fit into its part of ``seconds``.
        seconds: How long to run in all.

    Returns:
        A report for each border, in their order.
    """
    workers = min(os.cpu_count() or 1, len(borders))
    part = seconds * workers / len(borders)
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(border.name, seed, first, inputs, part, Path(folder) / border.name) for border in borders]
        for job in jobs:
            job.folder.mkdir()
        with multiprocessing.pool.ThreadPool(workers) as pool:
            return pool.map(_run, jobs)


def _run(job: Job) -> Report:
    """Run a job in processes of its own; after one died, go on behind the input that ended it."""
    context = multiprocessing.get_context("spawn")
    number, values = context.Value(ctypes.c_longlong, job.first), context.Value(ctypes.c_longlong, 0)
    findings: list[str] = []
    deadline = time.monotonic() + job.seconds
    while len(findings) < _FINDINGS_KEPT:
        receiver, sender = context.Pipe(duplex=False)
        done = number.value - job.first
        left = None if job.inputs is None else job.inputs - done
        rest = Job(job.border, job.seed, number.value, left, deadline - time.monotonic(), job.folder)
        process = context.Process(target=_read_inputs, args=(rest, number, values, sender), daemon=True)
        process.start()
        sender.close()
        findings += _findings_of(process, receiver, number)
        if process.exitcode == 0:
            break
        findings.append(f"input {number.value} ended the process (exit code {process.exitcode})")
        number.value += 1
    return Report(job.border, number.value - job.first, values.value, tuple(findings))


def _findings_of(process: SpawnProcess, receiver, number) -> list[str]:  # type: ignore[no-untyped-def]
    """Return what a process reports until it ends; end it if one input takes too long."""
    findings: list[str] = []
    last, since = -1, 0.0
    while True:
        try:
            if receiver.poll(0.5):
                findings.append(receiver.recv())
                continue
        except EOFError:
            break
        used = _processor_seconds(process.pid)
        if number.value != last:
            last, since = number.value, used
        elif used - since > _INPUT_SECONDS:
            process.kill()
            break
    process.join()
    return findings


def _processor_seconds(pid: int | None) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _read_inputs(job: Job, number, values, sender) -> None:  # type: ignore[no-untyped-def]
    border = (BORDERS | FAULTY)[job.border]
    samples, read = border.samples(), border.reader(job.folder)
    for sample in samples:
        read(sample)  # this loads what the reader imports
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # Polars prints each panic
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    deadline, reported = time.monotonic() + job.seconds, 0
    end = None if job.inputs is None else job.first + job.inputs
    while number.value != end and time.monotonic() < deadline and reported < _FINDINGS_KEPT:
        outcome = outcome_of(border, read, input_of(border, samples, job.seed, number.value))
        values.value += outcome == VALUE
        if outcome not in (VALUE, ERROR):
            sender.send(f"input {number.value} gave {outcome}")
            reported += 1
        number.value += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzzer as a command; return 1 if it found anything."""
    parser = argparse.ArgumentParser(description="Send mutated inputs to every border.")
    parser.add_argument("--seconds", type=float, default=600, help="how long to run in all")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the inputs")
    parser.add_argument("--border", choices=list(BORDERS), action="append", help="only these borders")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--inputs", type=int, help="inputs of each border, instead of as many as fit")
    options = parser.parse_args(arguments)
    chosen = [BORDERS[name] for name in options.border or BORDERS]
    print(f"seed {options.seed}, {options.seconds:g} s, {len(chosen)} borders", flush=True)
    reports = fuzz(chosen, options.seed, options.first, options.inputs, options.seconds)
    for report in reports:
        print(f"{report.border:<20}{report.inputs:>12,} inputs{report.values:>12,} values", flush=True)
        for finding in report.findings:
            print(f"  {finding}")
    found = sum(len(report.findings) for report in reports)
    print(f"{sum(report.inputs for report in reports):,} inputs, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
