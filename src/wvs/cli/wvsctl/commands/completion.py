"""`wvsctl completion`: prints the script that completes commands and options in a shell."""

from typing import Literal

from cyclopts import App

from wvs.cli.wvsctl.actions.invocation import Run


def register(root: App) -> None:
    """Adds the command. It needs the root app, so it is not a group like the others."""

    @root.command
    def completion(shell: Literal["bash", "zsh", "fish"], /, *, run: Run) -> None:  # pyright: ignore[reportUnusedFunction]
        """Print the shell's completion script, e.g. eval "$(wvsctl completion bash)".

        Parameters
        ----------
        shell
            The shell: bash, zsh or fish.
        """
        print(root.generate_completion(prog_name="wvsctl", shell=shell), file=run.screen.out)
