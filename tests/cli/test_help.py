"""Help: at once, in groups, a sentence for each option; and what shells complete."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from cyclopts import ArgumentCollection

from pgti.cli.app import COMMANDS, build_app
from pgti.cli.main import run_command

TEXTS = {name: text for group in COMMANDS.values() for name, text in group.items()}
HEADINGS = {
    "train": ["Arguments", "Options", "Start", "Model", "Windows", "Training", "Optimization",
              "Machine", "Output"],
    "ingest": ["Arguments", "Options", "Readings", "Times", "Graph", "Covariates", "Machine",
               "Output"],
    "evaluate": ["Arguments", "Options", "Readings", "Times", "Machine", "Output"],
}  # fmt: skip


def arguments_of(command: str) -> ArgumentCollection:
    return build_app(command)[command].assemble_argument_collection(parse_docstring=True)


def test_the_list_of_commands_has_the_first_line_of_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is shown without importing them, so it is written twice."""
    for name, text in TEXTS.items():
        command = getattr(import_module(f"pgti.cli.{name}"), f"{name}_command")
        assert command.__doc__.splitlines()[0] == text
    assert run_command([]) == 0
    listed = capsys.readouterr().out
    assert run_command(["--help"]) == 0
    assert capsys.readouterr().out == listed
    shown = " ".join(listed.replace("│", " ").split())
    for name, text in TEXTS.items():
        assert f"{name} {text.replace('`', '')}" in shown


def test_help_and_completion_import_no_large_library() -> None:
    """Torch, pandas and scipy take seconds; one process asks for the help of every command."""
    script = (
        "import sys; from pgti.cli.main import run_command\n"
        "for command in sys.argv[1:]:\n"
        "    assert run_command([command, '--help']) == 0\n"
        "assert run_command(['--help']) == run_command(['completion', 'bash']) == 0\n"
        "sys.exit(str({'torch', 'pandas', 'scipy', 'pgti.models'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *TEXTS], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize("command", TEXTS)
def test_every_option_has_one_sentence(command: str) -> None:
    for argument in arguments_of(command):
        if not argument.show or argument.parameter.parse is False:
            continue
        text = argument.parameter.help
        assert text, argument.name
        assert text.endswith("."), argument.name
        assert not text.endswith(" al."), f"{argument.name} is cut at an abbreviation"
        kinds = len(re.findall(r"\b[a-z, ]+: [A-Z]", text))  # an option of several variants
        sentences = len(re.findall(r"\.(?: |$)", text))
        assert sentences <= max(1, kinds) + text.count("By default"), text


@pytest.mark.parametrize("command", HEADINGS)
def test_options_are_grouped(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([command, "--help"]) == 0
    found = re.findall(r"^╭─ (\w+) ─", capsys.readouterr().out, re.MULTILINE)
    assert found == HEADINGS[command]


BASH = r"""
source "$1"
for line in "pgti tr" "pgti train s --ep" "pgti train s --order " "pgti ingest a --gap" \
    "pgti evaluate r --split v"; do
  read -ra COMP_WORDS <<< "$line"
  [[ $line == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line} COMPREPLY=()
  $(complete -p pgti | sed 's/.*-F \([^ ]*\).*/\1/')
  echo "${COMPREPLY[@]}"
done
"""


def test_bash_completes_commands_options_and_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "try").write_text(BASH)
    done = subprocess.run(
        ["bash", "try", "./script"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "train", "--epochs", "auto global blocks partitions", "--gaps", "val",
    ]  # fmt: skip


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in TEXTS:
        assert name in script
    assert "epochs" in script
