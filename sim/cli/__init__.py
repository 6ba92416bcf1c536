"""The command ``servesim``: parse, call the public API, print, exit code. A group of commands is one file; `main.COMMANDS` lists them."""

from sim.cli.app import app
from sim.cli.main import main

__all__ = ["app", "main"]
