"""Reads and writes Delta tables with deltalake, for the tests in deltalake.rs.

The request is JSON on stdin: {"op": …, "path": …}. Prints JSON.
"""
import json
import sys

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake

request = json.load(sys.stdin)
op, path = request["op"], request["path"]


def batch(rows):
    ids, venues, numbers = zip(*rows)
    return pa.table({"id": pa.array(ids, pa.int64()), "venue": pa.array(venues, pa.string()), "n": pa.array(numbers, pa.int64())})


def rows(version, where):
    table = DeltaTable(path, version=version)
    query = "SELECT id, venue, n FROM t" + (f" WHERE {where}" if where else "")
    found = pa.table(QueryBuilder().register("t", table).execute(query))
    return sorted(list(row) for row in zip(*(found.column(name).to_pylist() for name in ("id", "venue", "n"))))


answer = None
if op == "write":
    write_deltalake(path, batch(request["rows"]), partition_by=request.get("by") or None, mode="append",
                    configuration=request.get("configuration"))
elif op == "rows":
    answer = rows(request.get("version"), request.get("where"))
elif op == "delete":
    answer = DeltaTable(path).delete(request["where"])
elif op == "update":
    answer = DeltaTable(path).update(predicate=request["where"], updates=request["set"])
elif op == "optimize":
    answer = DeltaTable(path).optimize.compact()
elif op == "restore":
    answer = DeltaTable(path).restore(request["version"])
elif op == "checkpoint":
    DeltaTable(path).create_checkpoint()
elif op == "types":
    found = pa.table(QueryBuilder().register("t", DeltaTable(path)).execute("SELECT * FROM t ORDER BY id"))
    answer = {name: [str(value) for value in found.column(name).to_pylist()] for name in found.column_names}
elif op == "version":
    table = DeltaTable(path)
    answer = {"version": table.version(), "txn": {k: table.transaction_version(k) for k in request.get("apps", [])}}
else:
    sys.exit(f"no such operation: {op}")
print(json.dumps(answer, default=str))
