"""What mkdocstrings shows of functions that take the arguments of another one: its parameters.

It reads the code without running it, and so does not know what ``with_parameters_of`` does.
"""

from __future__ import annotations

from typing import Any, Final

import griffe

DECORATOR: Final = "with_parameters_of"


class SameParameters(griffe.Extension):  # type: ignore[misc]
    """Gives a function that is decorated by :data:`DECORATOR` the parameters of the function that it names."""

    def on_module_members(self, *, mod: griffe.Module, **_options: Any) -> None:
        """Give the functions of a module their parameters."""
        for function in mod.functions.values():
            for decorator in function.decorators:
                name, _, argument = str(decorator.value).partition("(")
                if name.rpartition(".")[2] == DECORATOR:
                    function.parameters = mod[argument.rstrip(")")].parameters
