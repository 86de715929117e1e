"""The command `zephyr`. Thin: options in, one flow, one answer out. Its commands are in `flows/commands/`.

Every command takes --json: then the last line of stdout is one JSON object. Logs and progress are on stderr.
Exit 0 done, 1 the run failed, 2 the input was wrong.
"""

import typer

from flows.commands.data import data
from flows.commands.judges import judges
from flows.commands.machines import machines
from flows.commands.stages import stages
from flows.commands.training import training

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="AI-feedback preference training: prompts, completions, judgements, pairs, SFT, DPO, evaluation.",
)
for commands in (stages, training, judges, data, machines):
    app.add_typer(commands.app)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
