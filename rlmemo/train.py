"""Train the prewarming policy: SFT, then DPO (or KTO), then an evaluation beside the baselines.

    python -m rlmemo.train                                     # everything, on synthetic timelines
    python -m rlmemo.train --timelines webtrackr --out runs/wt
    python -m rlmemo.train --timelines mine.csv --method sft
    python -m rlmemo.train --method ppo                        # learn from episodes of the replayed world
    python -m rlmemo.train --resume                            # go on with the last unfinished run
    torchrun --nproc_per_node 2 -m rlmemo.train --method sft   # two processes share every batch

What is learned, from what, and what a run folder holds: docs/training.md. Nothing heavy is imported
before the settings and the timelines have been found good.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import InputError, run_main
from env.judge.world_options import PRESET_HELP, WORLDS, WorldOptions
from env.private import private_files
from rlmemo.evaluation.ray_crew import add_ray, crew_of
from rlmemo.learning.config import (
    OF_THE_ADAPTER,
    TrainConfig,
    check_method,
    make_config,
    of_run,
    read_yaml,
    settings,
    yaml_lines,
)
from rlmemo.learning.following import follow
from rlmemo.learning.prepare import prepare
from rlmemo.learning.processes import count, leading, leads
from rlmemo.learning.record import note
from rlmemo.learning.training import Stopped, quiet
from rlmemo.model.hub import PROMPTS
from rlmemo.options import QUIET, Parser
from rlmemo.runs.folder import RunFolder, new_folder, old_folder
from rlmemo.runs.user_adapters import listing

if TYPE_CHECKING:
    from rlmemo.learning.prepare import Prepared

GROUPS = {
    "data": "what is learned from",
    "learning": "how",
    "world": "what a plan is worth (after --init-adapter: as there)",
    "sft": "supervised fine-tuning",
    "plans": "plans that are scored by replay (dpo, kto)",
    "dpo": "direct preference optimisation",
    "kto": "Kahneman-Tversky optimisation",
    "ppo": "proximal policy optimisation",
    "groups": "against several plans of one state (grpo, rloo)",
    "users": "one adapter per user",
    "feedback": "what people said of predictions",
    "text": "models that read text (any but the embedded one)",
    "evaluation": "the report",
}


def parser() -> argparse.ArgumentParser:
    """The command line: one option for every setting, and those of the run itself."""
    made = Parser(
        prog="python -m rlmemo.train",
        usage="python -m rlmemo.train [--timelines NAME|PATH] [--method METHOD] [--out FOLDER] [SETTINGS]",
        description=__doc__,
        allow_abbrev=False,
    )
    run = made.add_argument_group("the run")
    run.add_argument("--out", metavar="FOLDER", help="where it goes (default: a new folder under runs/)")
    run.add_argument(
        "--resume", action="store_true", help="continue the run in --out, or the last unfinished one"
    )
    run.add_argument(
        "--config", metavar="FILE", help="YAML with any of the settings below; options win over it"
    )
    run.add_argument(
        "--list-adapters", metavar="RUN", help="list the adapters of a run folder, and train nothing"
    )
    add_ray(run, "train users' adapters (--adapter-per-user)")
    groups = {key: made.add_argument_group(title) for key, title in GROUPS.items()}
    groups["world"].add_argument(
        "--world", choices=tuple(WORLDS), default=argparse.SUPPRESS, help=PRESET_HELP
    )
    for setting in settings():
        default = "" if setting.default is None else f" (default: {setting.default})"
        choices = setting.metadata["choices"]
        option = "--" + setting.name.replace("_", "-")
        if str(setting.type) == "bool":
            groups[setting.metadata["group"]].add_argument(
                option,
                action="store_true",
                default=argparse.SUPPRESS,
                help=setting.metadata["help"],
            )
            continue
        groups[setting.metadata["group"]].add_argument(
            option,
            default=argparse.SUPPRESS,
            metavar="|".join(choices) if choices else setting.name.rsplit("_", 1)[-1].upper(),
            help=f"{setting.metadata['help']}{default}".replace("%", "%%"),
        )
        if option in QUIET:
            made.add_argument(
                QUIET[option], dest=setting.name, default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )
    return made


def read_command_line(arguments: list[str]) -> tuple[TrainConfig, Path, bool]:
    """(settings, run folder, whether it is resumed). Raises InputError for anything that is not accepted."""
    given = vars(parser().parse_args(arguments))
    out, resume, file = given.pop("out"), given.pop("resume"), given.pop("config")
    given.pop("list_adapters"), given.pop("ray")
    if "method" in given:
        check_method(given["method"])
    if resume:
        path = old_folder(out)
        if given or file:
            other = "--config" if file else f"--{next(iter(given)).replace('_', '-')}"
            raise InputError(
                f"--resume continues {path} with the settings it was started with; leave out {other}, or "
                "start a new run with another --out"
            )
        source = path / "config.yaml"
        return of_run(read_yaml(source), str(source)), path, True
    values = read_yaml(Path(file)) if file else {}
    if file:
        make_config(values, str(file), yaml_lines(Path(file)))
    values = {**values, **WORLDS.get(given.pop("world", ""), {}), **given}
    config = make_config({**settings_before(values.get("init_adapter")), **values})
    stem = Path(config.timelines).name.split(".")[0] or "run"
    return config, new_folder(out, stem if config.method == "dpo" else f"{stem}-{config.method}"), False


def settings_before(run: str | None) -> dict[str, Any]:
    """The world and the kind of adapter of the run that another goes on from, by setting: what is left out is
    as it was there. Empty where there is no such run, which is said later
    (`rlmemo.learning.prepare.check_before`)."""
    if run is None or not (Path(run) / "config.yaml").is_file():
        return {}
    then = {"prompt": PROMPTS[-1], **read_yaml(Path(run) / "config.yaml")}
    kind = {name: then[name] for name in OF_THE_ADAPTER if then.get(name) is not None}
    return asdict(WorldOptions.of(then)) | kind


@private_files()
def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    if not leads():
        return follow()
    with leading():
        return _lead(arguments)


def _lead(arguments: list[str] | None) -> int:
    about = parser().parse_known_args(arguments)[0]
    if about.list_adapters is not None:
        print(listing(Path(about.list_adapters)))
        return 0
    config, path, resume = read_command_line(sys.argv[1:] if arguments is None else arguments)

    if about.ray is not None and not config.adapter_per_user:
        raise InputError("--ray is for --adapter-per-user; leave it out (rollouts: --rollout-workers)")
    prepared: Prepared = prepare(config, path, resume=resume)

    noted = note(prepared, path)
    start = "python" if count() == 1 else f"torchrun --nproc_per_node {count()}"
    again = f"{start} -m rlmemo.train --out {path} --resume"
    status = "failed"
    try:
        quiet()
        from rlmemo.learning.job import run_job

        try:
            with crew_of(about) as crew:
                run_job(prepared, RunFolder(path), crew=crew)
            status = "finished"
        except Stopped:
            raise KeyboardInterrupt from None
    except KeyboardInterrupt:
        status = "stopped"
        print(f"stopped; continue with: {again}", file=sys.stderr)
        return 130
    finally:
        if noted is not None:
            noted.ended(status, path)
    return 0


if __name__ == "__main__":
    run_main(main)
