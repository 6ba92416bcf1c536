"""What every section of a scenario has in common."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator


class Section(BaseModel):
    """A part of a scenario: frozen, unknown keys refused, defaults checked like values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Open(Section):
    """A section with settings of its own beside the declared fields: written flat, kept in ``settings``.

    The registered class that ``kind`` and the value of ``key`` name says what they may be (`sim.config.plugins.resolve`).
    """

    key: ClassVar[str]
    kind: ClassVar[str]

    settings: dict[str, Any] = Field(default_factory=dict, description="settings of the named class; read only")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {cls.key: value}
        if not isinstance(value, dict):
            return value
        declared = {k: v for k, v in value.items() if k in cls.model_fields and k != "settings"}
        given = value.get("settings") or {}
        if not isinstance(given, dict):
            raise ValueError("settings must be a mapping")  # noqa: TRY004 - pydantic wants a ValueError
        inline = {k: v for k, v in value.items() if k not in cls.model_fields}
        return declared | {"settings": {str(k): v for k, v in (inline | given).items()}}

    @model_serializer(mode="wrap")
    def _flatten(self, handler: Any) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        return data | data.pop("settings")


class Named(Open):
    """A name and the settings of what it names. A bare string is the name alone."""

    key: ClassVar[str] = "name"

    name: str = Field(min_length=1, description="which one")

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, value: Any) -> Any:
        if isinstance(value, dict) and cls.key != "name" and cls.key in value:
            if "name" in value:
                raise ValueError(f"give either {cls.key} or name, not both")
            return {"name" if k == cls.key else k: v for k, v in value.items()}
        return {"name": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _flatten(self, handler: Any) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        return {self.key: data.pop("name")} | data.pop("settings")
