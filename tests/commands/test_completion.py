"""`vgg-lightning --print_shtab`: a real bash completes subcommands, options, presets and networks."""

import shutil
import subprocess

import pytest

from vgg_lightning.__main__ import SUBCOMMANDS, main
from vgg_lightning.cli.completion import options_of, script


@pytest.fixture(scope="module")
def scripts():
    return {shell: script(shell) for shell in ("bash", "zsh")}


def complete(text, *words):
    """Return what a bash offers for the last of `words`."""
    line = " ".join(words)
    drive = (
        f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}\n"
        f'COMP_LINE="{line}"; COMP_POINT={len(line)}; COMPREPLY=()\n'
        "f=$(complete -p vgg-lightning | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        f'"$f" vgg-lightning "{words[-1]}" "{words[-2]}" 2>/dev/null\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", f"{text}\n{drive}"], capture_output=True, text=True, check=False)
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["f"], {"fit", "find"}),
        (["fit", "--model.net"], {"--model.network"}),
        (["fit", "--trainer.max_e"], {"--trainer.max_epochs"}),
        (["fit", "--model.network", "vgg1"], {"vgg11", "vgg13", "vgg16", "vgg19"}),
        (["fit", "--config", "spee"], {"speedrun", "speedrun94"}),
        (["fit", "--data.dataset", "emnist_b"], {"emnist_balanced", "emnist_bymerge", "emnist_byclass"}),
        (["fit", "--model.head", "g"], {"gap"}),
        (["fit", "--model.optimizer", "ad"], {"adam", "adamw"}),
        (["fit", "--model.batch_norm", "t"], {"true"}),
        (["export", "--form"], {"--format"}),
        (["summary", "alex"], {"alexnet"}),
        (["find", "l"], {"lr"}),
    ],
)
def test_bash(words, offered, scripts):
    assert complete(scripts["bash"], "vgg-lightning", *words) == offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_can_read_it(scripts):
    subprocess.run(["zsh", "-n"], input=scripts["zsh"], text=True, check=True)


def test_zsh_has_the_same_words(scripts):
    for word in ("--model.network", "whitened_vgg", "speedrun", *SUBCOMMANDS):
        assert word in scripts["zsh"]


def test_every_subcommand_has_options():
    assert all(options_of(subcommand) for subcommand in SUBCOMMANDS if subcommand not in ("presets", "find"))


def test_bad_input_is_one_line(capsys):
    assert main(["--print_shtab", "bsh"]) == 2
    assert "did you mean bash?" in capsys.readouterr().err
