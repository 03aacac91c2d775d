"""Common programs: how one is started so that the end of its start can be seen, without a window.

What is measured is the program's own work, up to the point at which it has done one small thing: a page laid
out, a document converted, a file read. A window's first frame needs a display, and is not in it.
"""

from __future__ import annotations

import os

from rlmemo.live.programs import Program

AS_ROOT = "--no-sandbox " if getattr(os, "geteuid", lambda: 1)() == 0 else ""
"""Chromium refuses to start for root otherwise."""
BROWSER = (
    f"{AS_ROOT}--headless --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-gpu --user-data-dir={profile} --dump-dom {page}"
)
CONVERT = (
    "soffice -env:UserInstallation=file://{profile} --headless --norestore --convert-to pdf --outdir {tmp} "
    "{document}"
)
RECIPES = (
    Program("chromium", f"chromium {BROWSER}", "line:</html>"),
    Program("google-chrome", f"google-chrome {BROWSER}", "line:</html>"),
    Program(
        "firefox",
        "firefox-esr --headless --no-remote --profile {profile} --screenshot {tmp}/page.png {page}",
    ),
    Program("libreoffice", CONVERT),
    Program("gimp", "gimp --no-interface --no-data --batch '(gimp-quit 0)'"),
    Program("inkscape", "inkscape --export-type=png --export-filename={tmp}/out.png {drawing}"),
    Program("emacs", "emacs --batch --find-file {document} --eval '(require (quote org))'"),
    Program("vim", "vim --not-a-term -T dumb -c qa! {document}"),
    Program("ffmpeg", "ffmpeg -v error -f lavfi -i sine=duration=1 -y {tmp}/tone.mp3"),
    Program("imagemagick", "convert -size 64x64 plasma: {tmp}/out.png"),
    Program("git", "git -C {tmp} init -q"),
    Program("perl", "perl -MPOSIX -MEncode -MFile::Find -e exit"),
    Program("python", "/usr/bin/python3 -c 'import asyncio, email, sqlite3, unittest, xml.dom.minidom'"),
    Program("java", "java -Xshare:auto -version"),
    Program("node", "node -e 'require(\"http\")'"),
)
"""The programs that `live measure` knows, by their target."""


def here() -> list[Program]:
    """Those that are installed."""
    return [program for program in RECIPES if program.is_here()]
