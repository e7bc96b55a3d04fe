"""The command `triolet run`: an app on the terminal.

command   options in, exit code out
given     what is written on the command line as the app's inputs
showing   events to the terminal: text, JSON lines, a record for the timeline
asking    forms of human-input nodes, and the next turn of a chat
session   replicas, services, the run itself, signals
"""

from __future__ import annotations

from server.cli_run.command import run as run
