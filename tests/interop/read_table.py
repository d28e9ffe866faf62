"""Prints the rows of an Iceberg table, read by pyiceberg, as JSON arrays of canonical text (see rows.rs), one a line.

The request is JSON on stdin: {"catalog": {properties}, "table": "namespace.name", "snapshot": id or null}.
"""
import json
import re
import struct
import sys
from datetime import timezone

from pyiceberg import types as t
from pyiceberg.catalog import load_catalog

NULL = "∅"


def number(value):
    """A double as Rust prints it: the shortest text that reads back as the same value."""
    text = repr(value)
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text) or re.sub(r"e\+?(-?)0*(\d)", r"e\1\2", text)


def single(value):
    if value != value or value in (float("inf"), float("-inf")):
        return number(value)
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.pack("<f", float(text)) == struct.pack("<f", value):
            return number(float(text))


def text(kind, value, nested=False):
    if value is None:
        return NULL
    match kind:
        case t.BooleanType():
            return "true" if value else "false"
        case t.FloatType():
            return single(value)
        case t.DoubleType():
            return number(value)
        case t.DecimalType():
            return f"{value:.{kind.scale}f}"
        case t.BinaryType() | t.FixedType():
            return "0x" + bytes(value).hex()
        case t.UUIDType():
            from uuid import UUID

            return str(value if isinstance(value, UUID) else UUID(bytes=bytes(value)))
        case t.TimeType():
            return value.isoformat(timespec="microseconds")
        case t.TimestampType():
            return value.isoformat(sep=" ", timespec="microseconds")
        case t.TimestamptzType():
            return value.astimezone(timezone.utc).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds") + " UTC"
        case t.ListType():
            return "[" + ", ".join(text(kind.element_type, v, True) for v in value) + "]"
        case t.MapType():
            pairs = value.items() if isinstance(value, dict) else value
            return "{" + ", ".join(sorted(f"{text(kind.key_type, k, True)}={text(kind.value_type, v, True)}" for k, v in pairs)) + "}"
        case t.StructType():
            return "(" + ", ".join(text(f.field_type, value[f.name], True) for f in kind.fields) + ")"
        case t.StringType():
            return json.dumps(value, ensure_ascii=False) if nested else value
        case _:
            return str(value)


request = json.load(sys.stdin)
table = load_catalog("lake", **request["catalog"]).load_table(request["table"])
snapshot = request["snapshot"]
scan = table.scan(snapshot_id=snapshot) if snapshot is not None else table.scan()
schema = scan.projection()
for batch in scan.to_arrow().to_batches():
    columns = [batch.column(field.name).to_pylist() for field in schema.fields]
    for row in zip(*columns):
        print(json.dumps([text(field.field_type, value) for field, value in zip(schema.fields, row)], ensure_ascii=False))
