"""Releases of engines whose decisions are modelled of one release, and whose host side is known of several lines of them."""

from __future__ import annotations

from sim.cost.engine_figures import version_of
from sim.cost.profile import engine_lines
from sim.errors import NotModelledError


def check_release(profile: str, version: str, newest: str) -> None:
    """Raise `NotModelledError` for a release before the first line of an engine's profile or after the ``newest`` one that is known."""
    lines = engine_lines(profile)
    if not version_of(lines[0]) <= version_of(version)[:2] <= version_of(newest):
        why = "this release is not known" if version_of(version) > version_of(newest) else "this release is not modelled"
        raise NotModelledError("engine.version", version, why, f"{lines[0]} to {newest}; lines begin at {', '.join(lines)}")


def refuse_release(version: str, known: str, why: str = "this release is not modelled") -> None:
    """Raise `NotModelledError` for a release of an engine of which single ones are ``known``."""
    raise NotModelledError("engine.version", version, why, known)


def older_host(profile: str, version: str, decides_as: str) -> tuple[str, ...]:
    """A sentence where the host side is that of an older line than the decisions."""
    lines = engine_lines(profile)
    mine = [line for line in lines if version_of(line) <= version_of(version)]
    if not mine or mine[-1] == lines[-1]:
        return ()
    return (f"version {version}: host overheads and kernels of line {mine[-1]}; it decides as {decides_as}",)
