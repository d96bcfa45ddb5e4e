"""Groups of commands that name the nearest one, and messages about wrong usage that name the way out."""

from __future__ import annotations

from difflib import get_close_matches

import click


class SuggestingGroup(click.Group):
    """A group that answers an unknown command with the nearest ones; click does so since 8.4 only."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name, as click does.

        Raises:
            click.UsageError: There is no such command.
        """
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name.lower(), self.commands)
            suggestion = f"; did you mean {' or '.join(near)}?" if near else ""
            raise click.UsageError(f"there is no command {name!r}{suggestion}", ctx)
        return super().resolve_command(ctx, args)


def usage_message(error: click.UsageError) -> str:
    """Return a usage error in one line, with the help that says how to do it.

    A value that cannot be used has a message of its own, which says how to write it.
    """
    message = error.format_message()
    is_value = isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter)
    if is_value or error.ctx is None:
        return message
    return f"{message.rstrip('.')}; see {error.ctx.command_path} --help"
