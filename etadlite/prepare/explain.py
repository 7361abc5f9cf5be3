"""Explain presets and settings in words: what each one is, and where it differs."""

import inspect
import json
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

from etadlite.base.errors import InputError, did_you_mean
from etadlite.base.tables import aligned
from etadlite.config import Settings, flat
from etadlite.presets import PRESETS, home, preset

UNITS = {  # of the numbers that have one; the others are counts, weights and shares
    "data.frame_step": "frames",
    "data.decode_size": "pixels",
    "data.crop": "pixels",
    "data.window_stride": "frames",
    "data.window_offset": "frames",
    "detector.max_duration": "cells",
    "training.memory": "bytes",
    "training.warmup_epochs": "epochs",
    "training.test_every": "epochs",
    "training.checkpoint_minutes": "minutes",
    "training.patience_minutes": "minutes",
}

PUBLISHED = {"anet_tsp": 37.80, "e2e_anet_tsp": 38.73, "thumos_i3d": 55.56}
"""Published average mAP in %: of the released ETAD code, for THUMOS-14 of OpenTAD."""

_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
}  # of JSON Schema


class Explained(NamedTuple):
    """A setting."""

    key: str
    value: Any  # as JSON has it
    usual: Any  # the default, or what the preset of a run says; None: there may be none
    differs: bool
    unit: str
    allowed: str
    meaning: str

    @property
    def text(self) -> str:
        """The value and its unit; in brackets what it differs from."""
        unit = f" {self.unit}" if self.unit and self.value else ""
        usual = f"  ({setting_text(self.usual)})" if self.differs else ""
        return f"{setting_text(self.value)}{unit}{usual}"


def explain_settings(
    name: str | None = None, section: str | None = None, *, as_json: bool = False
) -> str:
    """Return the settings of a preset or of a file, or the defaults, in words or as JSON.

    `section` is a part of the tree, such as `training`, or one setting; alone it may be given as
    `name`. A preset is compared with the defaults, and the settings of a run with its preset.

    Raises:
        InputError: there is no such preset, file or section.
    """
    if section is None and name is not None and name not in PRESETS and _belongs(name):
        name, section = None, name
    if section is not None and not _belongs(section):
        near, all_of_them = did_you_mean(section, [*_SECTIONS, *_FIELDS]), ", ".join(_SECTIONS)
        raise InputError(f'there is no section "{section}"{near} (there are {all_of_them})')
    rows = [row for row in explained(name) if section is None or section in _names_of(row.key)]
    if as_json:
        return json.dumps([row._asdict() for row in rows], indent=2)
    lines = [_in_words(row) for row in rows]
    if any(row.differs for row in rows):
        lines += ["", "* differs from what follows in brackets"]
    return "\n".join(lines)


def explain_presets(*, as_json: bool = False) -> str:
    """Return the presets in words or as JSON: what each one is, its data, its published mAP."""
    entries = []
    for name, function in PRESETS.items():
        what = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
        data, published = str(home(function())), PUBLISHED.get(name)
        entries.append({"name": name, "what": what, "data": data, "published_mAP": published})
    if as_json:
        return json.dumps(entries, indent=2)
    rows = [("preset", "data", "published average mAP in %")]
    for entry in entries:
        published = entry["published_mAP"]
        rows.append((entry["name"], entry["data"], f"{published:.2f}" if published else "-"))
    head, line, *rest = aligned(rows, left=2).splitlines()
    said = [_indented(entry["what"]) for entry in entries]
    body = [text for pair in zip(rest, said, strict=True) for text in pair]
    return "\n".join([head, line, *body, "", "their settings: etadlite settings PRESET [SECTION]"])


def setting_text(value: Any) -> str:
    """Return a setting as the command takes it: plain text, or JSON where that would be misread."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, ensure_ascii=False)


def _fields() -> dict[str, dict[str, Any]]:
    """Return `section.key` -> JSON Schema of the setting."""
    schema = Settings.model_json_schema()
    found = {}
    for name, entry in schema["properties"].items():
        section = schema["$defs"].get(entry.get("$ref", "").rpartition("/")[2])
        if section is None:
            found[name] = entry
        else:
            found |= {f"{name}.{key}": field for key, field in section["properties"].items()}
    return found


_FIELDS = _fields()
_SECTIONS = tuple(dict.fromkeys(key.partition(".")[0] for key in _FIELDS if "." in key))


def _names_of(key: str) -> tuple[str, str]:
    """Return the names under which a setting is asked for: its section's and its own."""
    return key.rpartition(".")[0], key


def _belongs(name: str) -> bool:
    return any(name in _names_of(key) for key in _FIELDS)


def explained(name: str | None) -> list[Explained]:
    """Return all settings of a preset or of a file, or the defaults; see `explain_settings`."""
    usual = {key: field.get("default") for key, field in _FIELDS.items()}
    values = usual if name is None else flat(preset(name).model_dump(mode="json"))
    compared = PRESETS.get(str(values["name"])) if name not in PRESETS else None
    if compared is not None:  # the settings of a run
        usual = flat(compared().model_dump(mode="json"))
    return [
        Explained(
            key,
            values[key],
            usual[key],
            values[key] != usual[key] and (compared is not None or "default" in field),
            UNITS.get(key, ""),
            _allowed(field),
            " ".join(field.get("description", "").split()).replace("None", "null"),
        )
        for key, field in _FIELDS.items()
    ]


def _allowed(field: Mapping[str, Any]) -> str:
    """Return the values that a JSON Schema allows, in words; empty if its type says it all."""
    if "anyOf" in field:
        parts = list(dict.fromkeys(filter(None, map(_allowed, field["anyOf"]))))
        if {"type": "boolean"} in field["anyOf"]:
            parts.append("true, false")
        if parts and {"type": "null"} in field["anyOf"]:
            parts.append("null")
        return " or ".join(parts)
    if "enum" in field:
        return ", ".join(field["enum"])
    if (field.get("minimum"), field.get("maximum")) == (0, 1):
        return "0 to 1"
    inner = field.get("items") or next(iter(field.get("prefixItems", ())), {})
    if inner:
        each = _allowed(inner)
        return f"each {each}" if each else ""
    bounds = (text.format(f"{field[key]:g}") for key, text in _BOUNDS.items() if key in field)
    return " and ".join(bounds)


def _in_words(row: Explained) -> str:
    """Return a setting as `key = value unit (usual)`, with its meaning below."""
    mark, allowed = "*" if row.differs else " ", f" [{row.allowed}]" if row.allowed else ""
    return f"{mark} {row.key} = {row.text}\n{_indented(row.meaning + allowed)}"


def _indented(text: str) -> str:
    width = min(shutil.get_terminal_size().columns, 100) - 8
    return textwrap.indent(textwrap.fill(text, width), " " * 6)
