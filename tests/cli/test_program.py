"""The program as a whole: every command's help and example, completion in a shell, exit codes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from nst_batch.cli import app

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
PROGRAM = Path(sys.executable).with_name("nst-batch")
NAMED_SHELL = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
"""The shell is the one that is named, not the one that runs the tests."""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_ends_with_an_example_that_the_program_understands(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"]).stdout
    example = " ".join(shown.strip().split("\n\n")[-1].split())
    assert example.startswith(f"Example: nst-batch {name}")
    words = shlex.split(example.removeprefix("Example: nst-batch "))
    arguments = words[1 : words.index(">") if ">" in words else None]
    with COMMANDS[name].make_context(name, arguments) as context:
        assert set(context.params) == {parameter.name for parameter in COMMANDS[name].params} - {"help"}


def test_what_overrides_a_study_is_the_same_everywhere() -> None:
    from nst_batch.study.reading import Overrides

    for name in ("plan", "run", "submit"):
        assert {parameter.name for parameter in COMMANDS[name].params} >= set(Overrides.__annotations__)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_choices(tmp_path: Path) -> None:
    environment = (
        os.environ | NAMED_SHELL | {"HOME": str(tmp_path), "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    )
    subprocess.run([PROGRAM, "--install-completion", "bash"], env=environment, check=True, capture_output=True)
    script = """
        source ~/.bashrc
        try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nst_batch_completion nst-batch; echo ${COMPREPLY[@]}; }
        try nst-batch ra
        try nst-batch export runs/w7 i
        try nst-batch run study.yaml --retry
        try nst-batch rank runs/w7 --format ''
    """
    done = subprocess.run(["bash", "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["rank", "images", "--retry-failed", "table json csv"]


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
def test_other_shells_are_given_a_script(shell: str) -> None:
    command = [str(PROGRAM), "--show-completion", shell]
    environment = os.environ | NAMED_SHELL
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "_NST_BATCH_COMPLETE" in done.stdout


def test_a_mistake_is_one_message_and_an_exit_code(tmp_path: Path) -> None:
    name = "evil\x1b]0;gotcha\x07.yaml"
    (tmp_path / name).write_text("content: [a.png]\nnme: x\n")
    done = subprocess.run([PROGRAM, "plan", name], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert r"evil\x1b]0;gotcha\x07.yaml:2: nme: unknown key" in done.stderr
    assert done.stderr.isascii()
    assert not set(done.stderr) & {"\x1b", "\x07"}


def test_the_list_of_commands_is_not_cut_short() -> None:
    shown = CliRunner().invoke(app, ["--help"], terminal_width=80).stdout
    assert "..." not in shown.partition("Commands:")[2]
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_the_version_is_said() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("nst-batch ")
