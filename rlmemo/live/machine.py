"""What this machine says of itself: its time zone, when it was started, how a program is kept running."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from env.errors import InputError
from env.timeline import zone

UNIT = """\
[Unit]
Description=rlmemo: records what is opened, and says what it would have had ready
After=default.target

[Service]
ExecStart={command}
WorkingDirectory={folder}
Restart=on-failure
RestartSec=30
UMask=0077
Nice=10

[Install]
WantedBy=default.target
"""
INSTALL = """\
# put this into ~/.config/systemd/user/rlmemo-live.service, then:
#   systemctl --user daemon-reload
#   systemctl --user enable --now rlmemo-live
"""


def time_zone() -> str:
    """The machine's time zone, as its own settings name it. Raises InputError where they name none."""
    named = [os.environ.get("TZ", "").lstrip(":")]
    with suppress(OSError, ValueError):
        named.append(Path("/etc/timezone").read_text(encoding="utf-8").strip())
    link = os.path.realpath("/etc/localtime")
    if "zoneinfo/" in link:
        named.append(link.split("zoneinfo/", 1)[1])
    for name in named:
        try:
            zone(name)
        except ValueError:
            continue
        if name:
            return name
    raise InputError("this machine does not say which time zone it is in; give --tz, such as Europe/Berlin")


def booted() -> float | None:
    """When the machine was started, unix seconds; None where it does not say."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    return None


def unit(arguments: list[str]) -> str:
    """A unit for `systemd --user` that starts live with these arguments, and how it is installed."""
    command = " ".join(_quoted(x) for x in [sys.executable, "-m", "rlmemo.live", "start", *arguments])
    return INSTALL + UNIT.format(command=command, folder=_quoted(str(Path.cwd())))


def _quoted(word: str) -> str:
    """As systemd reads it."""
    word = word.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{word}"' if " " in word or '"' in word else word
