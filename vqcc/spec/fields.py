"""Look-up of a field's definition in nested pydantic models by its path in the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

    from vqcc.spec.events import FieldPath


def field_info(model: type[BaseModel], path: FieldPath) -> FieldInfo | None:
    """Definition of the field that `path` ends in, None if the models do not tell."""
    owner = _model_at(model, path[:-1])
    if owner is None or not path:
        return None
    return _by_name(owner).get(str(path[-1]))


def _model_at(model: type[BaseModel] | None, path: FieldPath) -> type[BaseModel] | None:
    for step in path:
        if model is None:
            return None
        if isinstance(step, str):
            info = _by_name(model).get(step)
            model = _model_in(info.annotation) if info is not None else None
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _by_name(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {info.alias or name: info for name, info in model.model_fields.items()}


def bounds(model: type[BaseModel], path: FieldPath) -> tuple[float | None, float | None]:
    """Least and greatest legal value of the number at `path`, of the items if it is a list."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    info = field_info(model, path)
    limits = list(_limits(info)) if info is not None else []
    low = next((item.ge for item in limits if hasattr(item, "ge")), None)
    high = next((item.le for item in limits if hasattr(item, "le")), None)
    return low, high


def _limits(info: FieldInfo) -> Iterator[Any]:
    yield from info.metadata
    for argument in get_args(info.annotation):
        for nested in getattr(argument, "__metadata__", ()):
            yield from getattr(nested, "metadata", ())


def field_names(model: type[BaseModel], path: FieldPath) -> list[str]:
    """Fields of the mapping at `path` in data of `model`, as a spec writes them."""
    owner = _model_at(model, path)
    return [] if owner is None else list(_by_name(owner))
