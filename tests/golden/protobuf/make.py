"""Writes messages.txt: random messages of every.proto as Python's protobuf package encodes them, each in hexadecimal beside the row it is.

python -m pip install protobuf grpcio-tools; python make.py
"""

import datetime
import json
import pathlib
import random
import sys
import tempfile

import grpc_tools.protoc

here = pathlib.Path(__file__).parent
with tempfile.TemporaryDirectory() as out:
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    assert grpc_tools.protoc.main(["", f"-I{here}", f"-I{include}", f"--python_out={out}", str(here / "every.proto")]) == 0
    sys.path.insert(0, out)
    import every_pb2

r = random.Random(7)
EDGES32 = [0, 1, -1, 2**31 - 1, -(2**31), 300]
EDGES64 = [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1]
COLORS = {0: "RED", 1: "GREEN", -7: "DARK_BLUE"}


def integer(edges, signed=True, bits=64):
    if r.random() < 0.5:
        value = r.choice(edges)
        return value if signed else abs(value) % 2 ** (bits - 1)
    return r.randrange(-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - 1))


def text():
    return "".join(r.choice("aé\"\\\n😀\0z") for _ in range(r.randrange(6)))


def fraction():
    return r.randrange(-(2**20), 2**20) / 8


def color():
    return r.choice([0, 1, -7, 99])


def shown_color(number):
    return COLORS.get(number, str(number))


def inner():
    message, row = every_pb2.Every.Inner(), {"name": "", "numbers": []}
    if r.random() < 0.7:
        message.name = row["name"] = text()
    if r.random() < 0.5:
        message.size = row["size"] = integer(EDGES32, bits=32)
    row["numbers"] = [integer(EDGES64) for _ in range(r.randrange(3))]
    message.numbers.extend(row["numbers"])
    return message, row


def time():
    micros = r.randrange(-62135596800 * 10**6, 253402300800 * 10**6)
    if r.random() < 0.5:
        micros -= micros % 10**6
    when = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=micros)
    fraction = micros % 10**6
    digits = "" if fraction == 0 else f".{fraction // 1000:03}" if fraction % 1000 == 0 else f".{fraction:06}"
    return micros, f"{when.year:04}{when.strftime('-%m-%dT%H:%M:%S')}{digits}Z"


def every():
    m = every_pb2.Every()
    scalars = {
        "a_double": fraction, "a_float": fraction,
        "an_int32": lambda: integer(EDGES32, bits=32), "an_int64": lambda: integer(EDGES64),
        "a_uint32": lambda: r.randrange(2**32), "a_uint64": lambda: integer(EDGES64, signed=False),
        "a_sint32": lambda: integer(EDGES32, bits=32), "a_sint64": lambda: integer(EDGES64),
        "a_fixed32": lambda: r.randrange(2**32), "a_fixed64": lambda: integer(EDGES64, signed=False),
        "an_sfixed32": lambda: integer(EDGES32, bits=32), "an_sfixed64": lambda: integer(EDGES64),
        "a_bool": lambda: r.random() < 0.5, "a_string": text, "a_bytes": lambda: r.randbytes(r.randrange(5)),
        "a_color": color,
    }
    row = {"a_double": 0.0, "a_float": 0.0, "a_bool": False, "a_string": "", "a_bytes": "", "a_color": "RED"}
    for name, make in scalars.items():
        row.setdefault(name, 0)
        if r.random() < 0.7:
            value = make()
            setattr(m, name, value)
            row[name] = value.hex() if name == "a_bytes" else shown_color(value) if name == "a_color" else value
    if r.random() < 0.5:
        message, row["an_inner"] = inner()
        m.an_inner.CopyFrom(message)
    if r.random() < 0.5:
        m.maybe_int32 = row["maybe_int32"] = integer(EDGES32, bits=32)
    if r.random() < 0.5:
        m.maybe_string = row["maybe_string"] = text()
    if r.random() < 0.5:
        m.maybe_color = color()
        row["maybe_color"] = shown_color(m.maybe_color)
    lists = {"int32s": lambda: integer(EDGES32, bits=32), "sint64s": lambda: integer(EDGES64), "doubles": fraction, "strings": text}
    for name, make in lists.items():
        row[name] = [make() for _ in range(r.randrange(4))]
        getattr(m, name).extend(row[name])
    m.colors.extend([color() for _ in range(r.randrange(4))])
    row["colors"] = [shown_color(number) for number in m.colors]
    row["inners"] = []
    for _ in range(r.randrange(3)):
        message, shown = inner()
        m.inners.append(message)
        row["inners"].append(shown)
    for name, key, make in (("by_name", text, lambda: integer(EDGES64)), ("by_number", lambda: integer(EDGES32, bits=32), text)):
        values = {key(): make() for _ in range(r.randrange(4))}
        getattr(m, name).update(values)
        row[name] = {str(k): v for k, v in values.items()}
    row["by_flag"] = {}
    for flag in (False, True):
        if r.random() < 0.3:
            message, row["by_flag"][str(flag).lower()] = inner()
            m.by_flag[flag].CopyFrom(message)
    choice = r.randrange(4)
    if choice == 1:
        m.as_text = row["as_text"] = text()
    elif choice == 2:
        m.as_number = row["as_number"] = integer(EDGES64)
    elif choice == 3:
        message, row["as_inner"] = inner()
        m.as_inner.CopyFrom(message)
    if r.random() < 0.5:
        micros, row["at"] = time()
        m.at.FromMicroseconds(micros)
    if r.random() < 0.5:
        m.wrapped.value = row["wrapped"] = integer(EDGES64)
    if r.random() < 0.5:
        m.wrapped_text.value = row["wrapped_text"] = text()
    if r.random() < 0.5:
        seconds, nanos = r.randrange(10**6), r.randrange(10**9)
        m.took.seconds, m.took.nanos = seconds, nanos
        row["took"] = {"seconds": seconds, "nanos": nanos}
    row["times"] = []
    for _ in range(r.randrange(3)):
        micros, shown = time()
        m.times.add().FromMicroseconds(micros)
        row["times"].append(shown)
    return m.SerializeToString(), row


with open(here / "messages.txt", "w", encoding="ascii") as out:
    for _ in range(100):
        body, row = every()
        out.write(f"{body.hex() or '-'} {json.dumps(row)}\n")
