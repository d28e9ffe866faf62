"""Makes a format version 2 table with every type that pyiceberg can write, in a catalog of the stack.

The request is JSON on stdin: {"catalog": {properties}, "table": "namespace.name"}. Prints the id of the first of its two snapshots.
"""
import datetime as d
import json
import sys
import uuid
from decimal import Decimal

import pyarrow as pa
from pyiceberg import types as t
from pyiceberg.catalog import load_catalog
from pyiceberg.schema import Schema

request = json.load(sys.stdin)
catalog = load_catalog("lake", **request["catalog"])
fields = [
    ("id", t.LongType()), ("b", t.BooleanType()), ("i", t.IntegerType()), ("f", t.FloatType()), ("d", t.DoubleType()),
    ("n", t.DecimalType(12, 3)), ("s", t.StringType()), ("x", t.BinaryType()), ("u", t.UUIDType()), ("day", t.DateType()), ("at", t.TimeType()),
    ("ts", t.TimestampType()), ("tz", t.TimestamptzType()),
    ("l", t.ListType(101, t.StringType(), False)), ("m", t.MapType(102, t.StringType(), 103, t.DoubleType(), False)),
    ("r", t.StructType(t.NestedField(104, "p", t.IntegerType(), False), t.NestedField(105, "q", t.StringType(), False))),
]
schema = Schema(*(t.NestedField(i, name, kind, required=False) for i, (name, kind) in enumerate(fields, 1)))
catalog.create_namespace_if_not_exists(request["table"].split(".")[0])
table = catalog.create_table(request["table"], schema, properties={"format-version": "2"})

utc = d.timezone.utc
full = dict(id=1, b=True, i=-7, f=1.1, d=1e16, n=Decimal("-12.500"), s='zwölf "quoted", with comma', x=b"\x00\xff", u=uuid.UUID(int=7).bytes,
            day=d.date(1969, 12, 31), at=d.time(23, 59, 59, 999999), ts=d.datetime(2026, 1, 2, 3, 4, 5, 6), tz=d.datetime(1960, 1, 1, tzinfo=utc),
            l=["a", None, "b,c"], m=[("k", 0.1), ("a", None)], r={"p": 1, "q": None})
odd = dict(id=2, b=False, i=2**31 - 1, f=float("nan"), d=1e-7, n=Decimal("0.001"), s="", x=b"", u=uuid.UUID(int=2**127).bytes, day=d.date(9999, 12, 31),
           at=d.time(0), ts=d.datetime(1, 1, 1), tz=d.datetime(2262, 4, 12, 1, 2, 3, 4, tzinfo=utc), l=[], m=[], r={"p": None, "q": "x"})
infinite = dict(id=4, f=float("inf"), d=float("-inf"))


def rows(*values):
    names = [name for name, _ in fields]
    return pa.Table.from_pylist([{name: value.get(name) for name in names} for value in values], schema=table.schema().as_arrow())


table.append(rows(full, odd))
first = table.current_snapshot().snapshot_id
table.append(rows({"id": 3}, infinite, {"id": 3}))
print(first)
