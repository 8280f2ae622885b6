"""Examines an installation and says in one line each what was found and what to do about it."""

import importlib.metadata
import importlib.util
import re
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from typing import Literal

import kernels
from workbench import folders
from workbench.machines import host
from workbench.machines.peaks import stored_peaks

PORTS = {"workbench serve": 8866, "workbench lab": 8888}
LEAST_DISK_BYTES = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the examination; ``state`` "note" is worth knowing, "bad" must be put right."""

    subject: str
    state: Literal["good", "note", "bad"]
    found: str
    cure: str = ""


def examine() -> list[Finding]:
    """Return all findings."""
    return [
        _python(),
        *_packages(),
        _processor(),
        _threads(),
        _peaks(),
        _name(),
        *_ports(),
        _notebooks(),
        _papers(),
        *_folders(),
        _kernel_spec(),
    ]


def _python():
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", "good", f"{version}, {sys.executable}")


def _packages():
    """Compare what is installed with what the package asks for, extras included."""
    try:
        asked = importlib.metadata.requires("sparse-workbench") or []
    except importlib.metadata.PackageNotFoundError:
        return [Finding("packages", "note", "sparse-workbench is not installed, only imported", "pip install -e .")]
    groups = {}
    for requirement in asked:
        name = re.match(r"[\w.-]+", requirement)[0]
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", requirement)
        groups.setdefault(extra[1] if extra else "", []).append(name)
    findings = []
    for extra, names in groups.items():
        found = host.versions(names)
        missing = [name for name in names if name not in found]
        subject = f"extra '{extra}'" if extra else "packages"
        told = ", ".join(f"{name} {found[name]}" for name in names if name in found)
        if not missing:
            findings.append(Finding(subject, "good", told))
        else:
            source = "-e ." if folders.checkout() else "sparse-workbench"
            cure = f"pip install '{source}[{extra}]'" if extra else f"pip install {source}"
            findings.append(Finding(subject, "note" if extra else "bad", f"missing: {', '.join(missing)}", cure))
    return findings


def _processor():
    return Finding("processor", "good", f"{host.cpu_name()}; kernels use {kernels.isa()}")


def _threads():
    threads, cpus = kernels.get_num_threads(), host.usable_cpus()
    if threads > cpus:
        return Finding("threads", "note", f"{threads} threads on {cpus} CPUs", "kernels.set_num_threads(n) lowers them")
    return Finding("threads", "good", f"{threads} of {cpus} CPUs, {host.memory_bytes() / 1e9:.0f} GB of memory")


def _peaks():
    known = stored_peaks()
    found = f"modelled times rest on {known.origin.partition(';')[0]}"
    return Finding("peaks", "good", found) if known.own else Finding("peaks", "note", found, "workbench peaks")


def _name():
    """An unrelated package on PyPI is called `kernels` too; whichever comes first on the path answers."""
    spec = importlib.util.find_spec("kernels")
    try:
        other = importlib.metadata.version("kernels")
    except importlib.metadata.PackageNotFoundError:
        return Finding("name `kernels`", "good", f"ours, {spec.origin}")
    return Finding("name `kernels`", "bad", f"PyPI's package kernels {other} is installed too", "pip uninstall kernels")


def _ports():
    return [_port(command, port) for command, port in PORTS.items()]


def _port(command, port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Finding(f"port {port}", "note", f"taken ({error.strerror})", f"{command} --port N takes another")
    return Finding(f"port {port}", "good", f"free for {command}")


def _notebooks():
    from workbench.app.notebook_copies import notebook_paths

    found = notebook_paths()
    if not found:
        return Finding("notebooks", "bad", f"none in {folders.notebooks()}", "install the package again")
    return Finding("notebooks", "good", f"{len(found)} in {folders.notebooks()}: {', '.join(found)}")


def _papers():
    from workbench.gathered import gathered

    problems: dict[str, str] = {}
    found = gathered("workbench.papers", "PAPER", file="entry", problems=problems)
    if problems:
        told = "; ".join(f"{key} cannot be loaded ({reason})" for key, reason in problems.items())
        return Finding("papers", "bad", told, "mend the paper's entry.py, or install the package again")
    return Finding("papers", "good", f"{len(found)}: {', '.join(found)}")


def _folders():
    for subject, folder in (("your records", folders.home()), ("downloads", folders.cache())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                free = shutil.disk_usage(folder).free
        except OSError as error:
            yield Finding(subject, "bad", f"{folder}: {error.strerror}", "set WORKBENCH_HOME to a folder of your own")
            continue
        state, cure = ("good", "") if free > LEAST_DISK_BYTES else ("note", "free some space")
        yield Finding(subject, state, f"{folder}, {free / 1e9:.1f} GB free", cure)


def _kernel_spec():
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return Finding("Jupyter kernel", "bad", "no kernel 'python3'", "python -m ipykernel install --sys-prefix")
    return Finding("Jupyter kernel", "good", spec.argv[0])
