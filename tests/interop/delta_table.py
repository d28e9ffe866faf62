"""Reads and changes Delta tables in an object store with deltalake, for the tests in s3_delta.rs.

The request is JSON on stdin: {"op": …, "url": …, "options": {…}}. Prints JSON; rows are canonical text (see rows.rs).
"""
import json
import re
import sys

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake

NULL = "∅"
request = json.load(sys.stdin)
url, options = request["url"], request["options"]


def text(value):
    if value is None:
        return NULL
    if isinstance(value, float):
        return re.sub(r"e\+?(-?)0*(\d)", r"e\1\2", repr(value))
    return str(value)


answer = None
match request["op"]:
    case "rows":
        table = DeltaTable(url, version=request.get("version"), storage_options=options)
        found = pa.table(QueryBuilder().register("t", table).execute(f"SELECT {request['columns']} FROM t"))
        columns = [found.column(name).to_pylist() for name in found.column_names]
        answer = [[text(value) for value in row] for row in zip(*columns)]
    case "write":
        schema = pa.schema([("id", pa.int64()), ("symbol", pa.string()), ("price", pa.float64()), ("qty", pa.int32())])
        rows = [dict(zip(schema.names, row)) for row in request["rows"]]
        write_deltalake(url, pa.Table.from_pylist(rows, schema), mode="append", storage_options=options,
                        partition_by=request.get("by") or None, configuration=request.get("configuration"))
    case "delete":
        DeltaTable(url, storage_options=options).delete(request["where"])
    case "properties":
        DeltaTable(url, storage_options=options).alter.set_table_properties(request["properties"])
    case "restore":
        DeltaTable(url, storage_options=options).restore(request["version"])
    case "version":
        answer = DeltaTable(url, storage_options=options).version()
    case op:
        sys.exit(f"no such operation: {op}")
print(json.dumps(answer, ensure_ascii=False))
