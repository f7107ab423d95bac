"""`ckpt completion`."""

from __future__ import annotations

import click

from ckptvcs.cli.options import json_option


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_context
def command(ctx: click.Context, *, shell: str, as_json: bool) -> None:
    """Print the script that completes ckpt in a shell.

    Verbs, options, branches, tags and selectors are completed.

    \b
    Examples:
      ckpt completion bash >> ~/.bashrc
      ckpt completion fish > ~/.config/fish/completions/ckpt.fish
    """
    from click.shell_completion import get_completion_class

    from ckptvcs.cli import render

    completion = get_completion_class(shell)
    assert completion is not None
    script = completion(ctx.find_root().command, {}, "ckpt", "_CKPT_COMPLETE").source()
    if as_json:
        render.answer_json({"shell": shell, "script": script})
    else:
        render.answer(script)
