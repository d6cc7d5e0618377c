"""`pgti completion`: a script with which a shell completes commands and options."""

from typing import Literal

from pgti.cli.app import build_app
from pgti.cli.output import print_text

__all__ = ["completion_command"]


def completion_command(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the script with which a shell completes commands and options.

    bash: pgti completion bash > ~/.local/share/bash-completion/completions/pgti

    zsh: pgti completion zsh > DIRECTORY/_pgti, where DIRECTORY is in $fpath

    fish: pgti completion fish > ~/.config/fish/completions/pgti.fish

    Args:
        shell: The shell.
    """
    print_text(build_app().generate_completion(shell=shell))
