"""Changes the files of a folder as an enemy, a bad disk or a careless program would, for attack_files.

Everything is drawn from the random.Random that is handed in: the same seed gives the same folder.
"""

import io
import json
import os
import random
import socket
import struct
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple, Union

MOST_CHARACTERS = 1 << 16  # of a changed document: in a larger one, every place of it takes too long to list

Container = Union[Dict[str, Any], List[Any]]
Change = Callable[[Path, random.Random], str]  # changes one file, and says how

ODD_VALUES: Sequence[Any] = (
    None, True, False, 0, 1, -1, 2, 64, 2**31, 2**53, 2**63, -(2**63), 10**30, 10**300, 0.5, -0.0, 1e308, "", "x", "0",
    "\0", "\ud800", "\u202e\x1b[2J", "../../etc/passwd", "/dev/zero", "a" * 5000, "9" * 5000, "%s{}", [], {}, [[]],
    [None], {"": ""}, {"content": 5}, {"__class__": "x"}, ["a", 1, None, {}], "openvino", "neuron", "echo",
    "fp32", "[CLS]", "🤗", ">=99", ">=1,<2,!=1.*", 1e-300, [0] * 1000,
)  # fmt: skip


def changed(folder: Path, choice: random.Random) -> str:
    """Change one to three of the files in ``folder``; what was done, in words."""
    done = []
    for _ in range(choice.choice((1, 1, 1, 2, 3))):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        if files:
            path = choice.choice(files)
            change = choice.choice(changes_of(path))
            done.append(f"{path.relative_to(folder)}: {change(path, choice)}")
    return "; ".join(done)


def changes_of(path: Path) -> List[Change]:
    """What can be done to a file, the likely finds more than once."""
    anything: List[Change] = [changed_bytes, cut, replaced_content, replaced_kind]
    if path.suffix == ".json":
        return [*anything, *[changed_json] * 8, *[changed_text] * 2]
    if path.suffix == ".safetensors":
        return [*anything, *[changed_header] * 8]
    if path.suffix == ".npz":
        return [*anything, *[changed_archive] * 8]
    return anything


# ---------------------------------------------------------------------- bytes


def changed_bytes(path: Path, choice: random.Random) -> str:
    """A few bytes are others."""
    raw = bytearray(path.read_bytes()) or bytearray(1)
    places = [choice.randrange(len(raw)) for _ in range(choice.choice((1, 1, 2, 8)))]
    for place in places:
        raw[place] = choice.randrange(256)
    path.write_bytes(bytes(raw))
    return f"bytes {places} changed"


def cut(path: Path, choice: random.Random) -> str:
    """The end is missing, or there is more behind it."""
    raw = path.read_bytes()
    size = choice.randrange(len(raw) + 1)
    more = choice.choice((b"", b"", b"\0", b"\n{}", raw[:100]))
    path.write_bytes((raw + more) if more else raw[:size])
    return f"{len(more)} bytes added" if more else f"cut to {size} bytes"


def replaced_content(path: Path, choice: random.Random) -> str:
    """Something else altogether."""
    contents = {
        "nothing": b"",
        "zeros": bytes(4096),
        "noise": bytes(choice.randrange(256) for _ in range(500)),
        "deep lists": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "closed deep lists": b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
        "a pickle": b"\x80\x04c__builtin__\neval\n(S'1'\ntR.",
        "newlines": b"\n" * 200_000,
        "gzip": b"\x1f\x8b\x08" + bytes(20),
        "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "a list": b"[1, 2]",
        "a number": b"5",
        "text": "ÄÖ\u2028x\r\n\tUTF".encode(),
        "UTF-16": '{"a": 1}'.encode("utf-16"),
    }
    name = choice.choice(sorted(contents))
    path.write_bytes(contents[name])
    return name


def replaced_kind(path: Path, choice: random.Random) -> str:
    """No regular file, or none that can be opened."""
    kind = choice.choice(("pipe", "folder", "socket", "loop", "device", "nothing", "gone", "sparse", "neighbour"))
    neighbours = sorted(other for other in path.parent.iterdir() if other.is_file() and other != path)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.path.relpath(path))  # the path of a socket is short
    elif kind in ("loop", "device", "nothing"):
        path.symlink_to({"loop": path.name, "device": "/dev/zero", "nothing": "nowhere"}[kind])
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.truncate(100 << 20)
    elif kind == "neighbour" and neighbours:
        path.symlink_to(choice.choice(neighbours).name)
    return f"is {kind}"


# ---------------------------------------------------------------------- JSON


def changed_json(path: Path, choice: random.Random) -> str:
    """Still JSON, of another structure."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return changed_bytes(path, choice)
    document, done = changed_structure(document, choice)
    path.write_text(json.dumps(document), encoding="utf-8")
    return done


def changed_structure(document: Any, choice: random.Random) -> Tuple[Any, str]:
    """A document with one to four places changed, and what was done."""
    done = []
    for _ in range(choice.choice((1, 1, 1, 2, 4))):
        places = list(_places(document))
        if not places:
            return choice.choice(ODD_VALUES), "replaced"
        before = json.dumps(document)
        # Half of all changes are near the top, where there is little of each name.
        near = [place for place in places if len(place[2]) < 4]
        container, key, where = choice.choice(near if choice.random() < 0.5 else places)
        what = f"{'.'.join(map(str, where[:8]))} {_change_place(container, key, choice)}"
        try:
            after = json.dumps(document)
        except ValueError:  # a list that a swap put into itself
            after = before
        # Read back, so that nothing in it is there twice: the next change would change it everywhere.
        document = json.loads(after if len(after) < MOST_CHARACTERS else before)
        done.append(what)
    return document, ", ".join(done)


def _places(value: Any, where: Tuple[Any, ...] = ()) -> Iterator[Tuple[Container, Any, Tuple[Any, ...]]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key, (*where, key)
        yield from _places(inner, (*where, key))


def _change_place(container: Any, key: Any, choice: random.Random) -> str:
    value = container[key]
    what = choice.choice(("odd", "odd", "odd", "delete", "rename", "wrap", "scale", "repeat", "swap", "deep"))
    if what == "delete":
        del container[key]
    elif what == "rename" and isinstance(container, dict):
        container[choice.choice((f"{key}x", "", str(key).upper(), "digest", "__proto__", "a.b"))] = container.pop(key)
    elif what == "wrap":
        container[key] = choice.choice(([value], {"a": value}, [value, value], {str(value)[:20]: value}))
    elif what == "scale" and isinstance(value, (int, float)):
        container[key] = choice.choice((value + 1, value - 1, -value, value * 10**6, value / 3, str(value)))
    elif what == "scale" and isinstance(value, str):
        container[key] = choice.choice((value * 50, value[:-1], value + "\n", value.upper(), value[::-1], f" {value}"))
    elif what == "repeat" and isinstance(container, list):
        container.extend([value] * choice.choice((1, 200)))
    elif what == "swap":
        other = choice.choice(list(container) if isinstance(container, dict) else range(len(container)))
        container[key], container[other] = container[other], container[key]
    elif what == "deep":
        for _ in range(choice.choice((10, 62, 63, 64, 70, 150))):
            value = [value]
        container[key] = value
    else:
        container[key] = choice.choice(ODD_VALUES)
        return f"= {str(container[key])[:30]!r}"
    return what


def changed_text(path: Path, choice: random.Random) -> str:
    """JSON that some readers take: a name twice, NaN, endless numbers, half characters, a byte order mark."""
    raw = path.read_bytes()
    odd = choice.choice(
        (b"NaN", b"-Infinity", b"1e999", b"9" * 2_000_000, rb'"\ud800"', rb'{"\udfff": 1}', b"'x'", b"[" * 90_000,
         b"/* */ 1", b"01", b"1.", b'"\x00"', b'"\xff"', b'{"a": 1, "a": 2}', b"-0")
    )  # fmt: skip
    places = [place for place in range(len(raw)) if raw[place : place + 1] == b":"]
    if not places:
        path.write_bytes(odd)
        return f"replaced with {odd[:20]!r}"
    place = choice.choice(places) + 1
    if choice.random() < 0.2:
        path.write_bytes(b"\xef\xbb\xbf" + raw)
        return "byte order mark"
    if choice.random() < 0.3:
        end = raw.rindex(b"}") if b"}" in raw else len(raw)
        path.write_bytes(raw[:end] + b', "files": ' + odd + raw[end:])
        return f"a last entry {odd[:20]!r}"
    path.write_bytes(raw[:place] + b" " + odd + b', "z": ' + raw[place:])
    return f"{odd[:20]!r} put in at {place}"


# ---------------------------------------------------------------------- safetensors and npz


def changed_header(path: Path, choice: random.Random) -> str:
    """A header that lies about its tensors, or about itself."""
    raw = path.read_bytes()
    try:
        length = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8 : 8 + length])
    except (ValueError, struct.error, RecursionError):
        return changed_bytes(path, choice)
    if choice.random() < 0.1:
        claimed = choice.choice((0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1))
        path.write_bytes(struct.pack("<Q", claimed) + raw[8:])
        return f"header of {claimed} bytes claimed"
    numbers = [
        (f"{name}.{key}", entry[key])
        for name, entry in (header.items() if isinstance(header, dict) else ())
        for key in ("shape", "data_offsets")
        if isinstance(entry, dict) and isinstance(entry.get(key), list)
    ]
    if numbers and choice.random() < 0.4:
        name, listed = choice.choice(numbers)
        place = choice.randrange(len(listed) or 1)
        number = choice.choice((0, 1, -1, 3, 4, 8, 32, 128, 4096, 10**30, 2**62))
        listed[place : place + 1] = [number]
        done = f"{name}[{place}] = {number}"
    else:
        header, done = changed_structure(header, choice)
    body = json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(body)) + body + raw[8 + length :])
    return done


def changed_archive(path: Path, choice: random.Random) -> str:
    """An archive that is packed, lacks or repeats a member, or has an array of an odd type, shape or header."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):
        return changed_bytes(path, choice)
    if not members:
        return "empty"
    place = choice.randrange(len(members))
    name, raw = members[place]
    what = choice.choice(("bomb", "missing", "more", "twice", "shape", "type", "header", "values", "renamed"))
    packing = zipfile.ZIP_DEFLATED if what == "bomb" else zipfile.ZIP_STORED
    if what == "bomb":
        members[place] = (name, bytes(64 << 20))
    elif what == "missing":
        members.pop(place)
    elif what == "more":
        members.append((choice.choice(("../evil.npy", "x.npy", "a/")), raw))
    elif what == "twice":
        members.append((name, raw))
    elif what == "renamed":
        members[place] = (name.upper(), raw)
    else:
        members[place] = (name, _changed_array(raw, what, choice))
    _write_archive(path, members, packing)
    return f"{name}: {what}"


def _changed_array(raw: bytes, what: str, choice: random.Random) -> bytes:
    start = 10 + int.from_bytes(raw[8:10], "little")
    text, data = raw[10:start].decode("latin-1"), raw[start:]
    if what == "shape":
        odd = choice.choice(
            ("(10000000000, 10000000000)", "(-1, 4)", "()", "5", "(0, 4)", "(" * 90, "(1,)", "(2, 2, 2)")
        )
        text = text[: text.index("(")] + odd + ", }\n" if "(" in text else odd
    elif what == "type":
        odd = choice.choice(("|O", "<f8", "<i4", "|V8", "<U4", "<M8[ns]", "x", "<f4", "<i8", ">i8"))
        text = text.replace("<i8", odd).replace("<f4", odd)
    elif what == "header":
        text = choice.choice(
            ("", "{}", "[" * 5000, "__import__('os').abort()", " " * 60_000, "-" * 3000 + "1", "{'shape': 1}")
        )
    else:
        data = bytes(choice.choice((0, 1, 127, 255)) for _ in range(8)) * (len(data) // 8)
    return raw[:8] + struct.pack("<H", len(text)) + text.encode("latin-1") + data


def _write_archive(path: Path, members: Sequence[Tuple[str, bytes]], packing: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, raw in members:
            archive.writestr(name, raw)
    path.write_bytes(out.getvalue())
