"""Signatures: functions that take exactly the arguments of another one, without a copy of its list of parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def with_parameters_of(
    model: Callable[Parameters, object],
) -> Callable[[Callable[..., Result]], Callable[Parameters, Result]]:
    """Return a decorator that gives a function the parameters of another one, for people and for type checkers.

    Args:
        model: The function that has the parameters, to which the decorated one passes on what it gets.
    """

    def decorate(function: Callable[..., Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(function)
        parameters = inspect.signature(model).replace(return_annotation=signature.return_annotation)
        described: Any = function
        described.__signature__ = parameters  # what `help` and editors show
        return cast("Callable[Parameters, Result]", function)

    return decorate
