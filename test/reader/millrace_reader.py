#!/usr/bin/env python3
"""An independent reader, judge and small writer of the millrace container, version 1.

Written from the format document alone, so that it can disagree with the implementation it judges.
Needs Python 3.9+, `cryptography` 38+, and the `zstd` command, which decodes frames; the frames'
headers, blocks and sizes are parsed and checked here. Nothing is written out before all of it is
verified: plaintext waits in unnamed temporary files.

  millrace_reader.py judge FILE [KEY] [--plain] [--layer3-only] [--server S] [--id I]   one JSON object
  millrace_reader.py cat   FILE [KEY] [--plain] [--layer3-only] [--server S] [--id I]   layer 1 (or 2) to stdout
  millrace_reader.py entry FILE PATH ... [KEY] [--plain] [--server S] [--id I]          files, by the seek table
  millrace_reader.py seed  FILE --password-file F                                       the original layout
  millrace_reader.py batch FILE                                                         judge, a JSON array of arguments a line
  millrace_reader.py make  DIR                                                          sample objects, manifest.json
KEY is --password-file F (one trailing newline is dropped) or --key-file F (32 bytes, or 64 hex digits).
Exit status: 0 accepted, 1 rejected (with one of the codes below), 2 usage.
"""
import argparse, hashlib, hmac, io, json, os, shutil, struct, subprocess, sys, tarfile, tempfile, unicodedata
from collections import Counter, OrderedDict, namedtuple
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CODES = ("NOT_SEALED", "TRUNCATED", "UNSUPPORTED", "BAD_HEADER", "WRONG_KEY", "AUTH_FAILED",
         "CORRUPT", "LIMIT", "MISPLACED", "NOT_FOUND")
MAGIC, HEADER, OVERHEAD = b"MILLRACE", 64, 28
MIB = 1 << 20
MAX_FRAME = 128 * MIB                  # the largest C: no frame of ours holds more, no window is larger
MAX_TABLE = 1 << 27                    # seek table entries
ZSTD_MAGIC, INDEX_MAGIC, TABLE_MAGIC, FOOTER_MAGIC = 0xFD2FB528, 0x184D2A5B, 0x184D2A5E, 0x8F92EAB1


class Reject(Exception):
    def __init__(self, code, detail):
        assert code in CODES
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


class Usage(Exception):
    pass


def need(condition, code, detail):
    if not condition:
        raise Reject(code, detail)


class Source:
    """Bytes at an offset, of a seekable file."""
    def __init__(self, f):
        self.f, self.size = f, f.seek(0, io.SEEK_END)

    def read_at(self, off, n):
        self.f.seek(off)
        return self.f.read(n)

    def pieces(self, off, n, step=MIB):
        for at in range(off, off + n, step):
            yield self.read_at(at, min(step, off + n - at))

    def sha256(self):
        h = hashlib.sha256()
        for piece in self.pieces(0, self.size):
            h.update(piece)
        return h.hexdigest()


# ---- layer 3: the container ----------------------------------------------------------------------

def hkdf32(root, salt, info):
    prk = hmac.new(salt, root, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def derive(kdf, iterations, salt, key, password):
    if kdf == 0:
        need(key is not None, "WRONG_KEY", "sealed with a raw key, and a password was given")
        return key
    need(password is not None, "WRONG_KEY", "sealed with a password, and a raw key was given")
    return hashlib.pbkdf2_hmac("sha256", unicodedata.normalize("NFC", password).encode(), salt, iterations, 32)


class Sealed(Source):
    """The plaintext of a container, verified frame by frame as it is asked for."""
    def __init__(self, f, key=None, password=None):
        super().__init__(f)
        self.object_size, head = self.size, self.read_raw(0, HEADER)
        need(head and head[:8] == MAGIC[:len(head)], "NOT_SEALED", "no MILLRACE magic")
        need(len(head) == HEADER, "TRUNCATED", "ends inside the header")
        version, suite, kdf, log, iterations = struct.unpack(">4BI", head[8:16])
        need(version == 1, "UNSUPPORTED", f"format version {version}")
        need(suite == 1, "UNSUPPORTED", f"suite {suite}")
        need(kdf in (0, 1), "UNSUPPORTED", f"key derivation {kdf}")
        need(12 <= log <= 24, "BAD_HEADER", f"frame size 2^{log}")
        if kdf == 0:
            need(iterations == 0, "BAD_HEADER", "iterations with a raw key")
        else:
            need(100_000 <= iterations <= 10_000_000, "BAD_HEADER", f"{iterations} iterations")
        salt, self.mac = head[16:32], head[32:]
        root = derive(kdf, iterations, salt, key, password)
        mac = hmac.new(hkdf32(root, salt, b"millrace/v1/header"), head[:32], hashlib.sha256).digest()
        need(hmac.compare_digest(mac, self.mac), "WRONG_KEY", "wrong password, or the header is damaged")
        self.aes = AESGCM(hkdf32(root, salt, b"millrace/v1/frames"))
        self.F, self.cache, self.opened = 1 << log, OrderedDict(), set()
        # P = full * F + rest, and the last frame is always there and always shorter than F
        full, rest = divmod(self.object_size - HEADER, self.F + OVERHEAD)
        need(rest != 0, "TRUNCATED", "ends after a full frame")
        need(rest >= OVERHEAD, "TRUNCATED", "ends inside a frame: no plaintext has this length")
        self.frames, self.size = full + 1, full * self.F + rest - OVERHEAD
        need(self.frames <= 1 << 32, "LIMIT", "more than 2^32 frames")

    def read_raw(self, off, n):
        return Source.read_at(self, off, n)

    def frame(self, i):
        if i not in self.cache:
            last = i == self.frames - 1
            n = self.size - i * self.F if last else self.F
            b = self.read_raw(HEADER + i * (self.F + OVERHEAD), n + OVERHEAD)
            need(len(b) == n + OVERHEAD, "TRUNCATED", "the object became shorter")
            try:
                plain = self.aes.decrypt(b[:12], b[12:], self.mac + struct.pack(">Q", i))
            except InvalidTag:
                raise Reject("AUTH_FAILED", f"the tag of frame {i}" + (" (the last: damaged, or cut)" if last else ""))
            self.opened.add(i)
            self.cache[i] = plain
            if len(self.cache) > 4:
                self.cache.popitem(last=False)
        return self.cache[i]

    def read_at(self, off, n):
        n = max(0, min(n, self.size - off))
        if n == 0:
            return b""
        first, last = off // self.F, (off + n - 1) // self.F
        got = b"".join(self.frame(i) for i in range(first, last + 1))
        return got[off - first * self.F:][:n]

    def whole(self):
        """All frames in order into a temporary file."""
        out = tempfile.TemporaryFile()
        for i in range(self.frames):
            out.write(self.frame(i))
        return Source(out)


def unseed(f, password):
    """salt 16, nonce 12, ciphertext, tag 16: the plaintext, after its one tag verified."""
    src = Source(f)
    need(src.read_at(0, 8) != MAGIC, "UNSUPPORTED", "a millrace container, not the original layout")
    need(src.size >= 44, "TRUNCATED", "shorter than salt, nonce and tag")
    head, tag = src.read_at(0, 28), src.read_at(src.size - 16, 16)
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), head[:16], 100_000, 32)
    dec, out = Cipher(algorithms.AES(key), modes.GCM(head[16:], tag)).decryptor(), tempfile.TemporaryFile()
    try:
        for piece in src.pieces(28, src.size - 44):
            out.write(dec.update(piece))
        dec.finalize()
    except InvalidTag:
        raise Reject("AUTH_FAILED", "the tag: wrong password, or a damaged object")
    return Source(out)


# ---- layer 2: zstd frames, index, seek table -----------------------------------------------------

Frame = namedtuple("Frame", "off clen magic content checksum")      # content: None where it is not said


def parse_frame(src, off, end):
    """One complete frame at off, by its header and blocks; nothing is decoded."""
    def take(at, n):
        need(at + n <= end, "CORRUPT", f"the stream ends inside the frame at {off}")
        return src.read_at(at, n)
    magic, = struct.unpack("<I", take(off, 4))
    if magic & 0xFFFFFFF0 == 0x184D2A50:
        n, = struct.unpack("<I", take(off + 4, 4))
        need(off + 8 + n <= end, "CORRUPT", f"the stream ends inside the skippable frame at {off}")
        return Frame(off, 8 + n, magic, 0, False)
    need(magic == ZSTD_MAGIC, "CORRUPT", f"no zstd frame at {off}")
    fhd, at = take(off + 4, 1)[0], off + 5
    single, checksum = bool(fhd & 0x20), bool(fhd & 4)
    need(not fhd & 8, "CORRUPT", f"reserved bit in the frame header at {off}")
    window = None
    if not single:
        w, at = take(at, 1)[0], at + 1
        window = (1 << 10 + (w >> 3)) // 8 * (8 + (w & 7))
    n = (0, 1, 2, 4)[fhd & 3]
    need(not any(take(at, n)), "CORRUPT", f"the frame at {off} needs a dictionary")
    at += n
    n = (1 if single else 0, 2, 4, 8)[fhd >> 6]
    content = int.from_bytes(take(at, n), "little") + (256 if n == 2 else 0) if n else None
    at += n
    window = content if single else window
    need(window <= MAX_FRAME, "LIMIT", f"the frame at {off} needs a window over 128 MiB")
    last = False
    while not last:
        b = int.from_bytes(take(at, 3), "little")
        last, kind, size = b & 1, b >> 1 & 3, b >> 3
        need(kind != 3 and size <= min(window, 128 * 1024), "CORRUPT", f"bad block at {at}")
        at += 3 + (1 if kind == 1 else size)
    if checksum:
        take(at, 4)
        at += 4
    need(at <= end, "CORRUPT", f"the stream ends inside the frame at {off}")
    return Frame(off, at - off, magic, content, checksum)


def scan(src, off, end):
    while off < end:
        frame = parse_frame(src, off, end)
        yield frame
        off += frame.clen


def decode(src, frames, out=None):
    """Exactly these complete data frames through `zstd -d`; the output's length is checked against the headers."""
    out = out or tempfile.TemporaryFile(buffering=0)
    before = out.seek(0, io.SEEK_END)
    if not frames:
        return out
    with tempfile.TemporaryFile() as err:
        p = subprocess.Popen(["zstd", "-d", "-c", "-q", "--no-sparse"], stdin=subprocess.PIPE, stdout=out, stderr=err)
        try:
            with p.stdin:
                for f in frames:
                    for piece in src.pieces(f.off, f.clen):
                        p.stdin.write(piece)
        except BrokenPipeError:                    # it gave up; its status says so
            pass
        finally:
            status = p.wait()
        err.seek(0)
        need(status == 0, "CORRUPT", f"frames from {frames[0].off}: {err.read(200).decode(errors='replace').strip()}")
    if all(f.content is not None for f in frames):
        need(out.seek(0, io.SEEK_END) - before == sum(f.content for f in frames), "CORRUPT",
             f"frames from {frames[0].off} do not decode to their content sizes")
    return out


def parse_table(src, ours):
    """The seek table that ends the stream: (its offset, [(c, d), ...]), or None where the stream has none."""
    if src.size < 17:
        return None
    count, flags, magic = struct.unpack("<IBI", src.read_at(src.size - 9, 9))
    if magic != FOOTER_MAGIC:
        return None
    need(count <= MAX_TABLE, "LIMIT", f"a seek table of {count} entries")
    need(not flags & 0x7C, "CORRUPT", "reserved bits in the seek table's descriptor")
    need(not (ours and flags & 0x80), "CORRUPT", "a seek table with checksums")
    width = 12 if flags & 0x80 else 8
    at = src.size - 17 - width * count
    need(at >= 0, "CORRUPT", "a seek table longer than the stream")
    need(struct.unpack("<II", src.read_at(at, 8)) == (TABLE_MAGIC, width * count + 9), "CORRUPT", "the seek table's header")
    rows, total = [], 0
    for piece in src.pieces(at + 8, width * count, width * 65536):
        for row in struct.iter_unpack("<II4x" if width == 12 else "<II", piece):
            total += row[0]
            rows.append(row)
    need(total == at, "CORRUPT", "the seek table's compressed sizes do not add up to its offset")
    return at, rows


def integer(x, most=2**53 - 1):
    return type(x) is int and 0 <= x <= most


def number(x):
    return type(x) in (int, float) and abs(x) < 2**53


def bad_constant(name):
    raise ValueError(name)


class Index:
    """The index frame: its head, and its entries one at a time."""
    def __init__(self, src, frame, server=None, ident=None):
        start, end = frame.off + 16, frame.off + frame.clen
        need(src.read_at(frame.off + 8, 8) == b"MLRINDEX" and start <= end, "CORRUPT", "the index has no MLRINDEX")
        self.frames = []
        for f in scan(src, start, end):
            need(f.magic == ZSTD_MAGIC and f.content is not None, "CORRUPT", "an index frame without a content size")
            need(f.content <= MIB, "LIMIT", "an index frame of more than 1 MiB")
            self.frames.append(f)
        self.lines = Source(decode(src, self.frames))
        self.sha256 = self.lines.sha256()
        self.objects = self.parse()
        self.head = h = next(self.objects, None)
        need(h is not None, "CORRUPT", "an index without a head")
        need(type(h.get("v")) is int, "CORRUPT", "the index head's v")
        need(h["v"] == 1, "UNSUPPORTED", f"index version {h['v']}")
        need(h.get("kind") in ("tar", "raw"), "CORRUPT", "the index head's kind")
        for name, good in (("server", str), ("id", str), ("tool", str)):
            need(isinstance(h.get(name), good), "CORRUPT", f"the index head's {name}")
        for name in ("bytes", "files", "created") + (("mode",) if h["kind"] == "tar" else ()):
            need(integer(h.get(name)), "CORRUPT", f"the index head's {name}")
        need("consistency" in h, "CORRUPT", "the index head's consistency")
        need(h["kind"] == "raw" or number(h.get("mtime")), "CORRUPT", "the index head's mtime")
        for name, known in (("server", server), ("id", ident)):
            need(known is None or known == h[name], "MISPLACED", f"{name} is {h[name]!r}, not {known!r}")

    def parse(self):
        at = 0
        for f in self.frames:
            block = self.lines.read_at(at, f.content)
            at += f.content
            need(block[-1:] in (b"\n", b""), "CORRUPT", "an index frame that does not end with a line")
            for line in block.split(b"\n")[:-1]:
                try:
                    o = json.loads(line.decode("utf-8"), parse_constant=bad_constant)
                except (ValueError, RecursionError):
                    o = None
                need(isinstance(o, dict), "CORRUPT", f"an index line that is no JSON object: {line[:80]!r}")
                yield o

    def entries(self):
        """The entries after the head, each checked by itself; to be gone through once."""
        tar = self.head["kind"] == "tar"
        for e in self.objects:
            p = e.get("path")
            need(isinstance(p, str) and "\0" not in p and not any(c in ("", ".", "..") for c in p.split("/")),
                 "CORRUPT", f"an entry's path: {p!r}")
            need(e.get("type") in ("file", "dir", "symlink", "link"), "CORRUPT", f"{p!r}: type")
            need(e.get("changed") in (None, "grew", "shrank", "modified", "vanished", "unreadable"), "CORRUPT", f"{p!r}: changed")
            need(e.get("superseded") in (None, True, False), "CORRUPT", f"{p!r}: superseded")
            need(isinstance(e.get("link", None if e["type"] in ("symlink", "link") else ""), str), "CORRUPT", f"{p!r}: link")
            gone = e.get("changed") == "vanished" and "at" not in e
            for name in ("size", "at", "data", "mode", "uid", "gid"):
                optional = not tar or gone and name in ("size", "at", "data")
                need(integer(e.get(name)) or optional and e.get(name) is None, "CORRUPT", f"{p!r}: {name}")
            need(number(e.get("mtime")) or not tar and e.get("mtime") is None, "CORRUPT", f"{p!r}: mtime")
            need((e.get("data") or 0) + (e.get("size") or 0) <= self.head["bytes"], "CORRUPT", f"{p!r}: beyond layer 1")
            yield e


def octal(field, what):
    text = field.strip(b" \0")
    need(not text.strip(b"01234567"), "CORRUPT", f"tar: {what} is not octal")
    return int(text or b"0", 8)


def tar_members(src):
    """A pax tar stream, walked header by header, up to and over its end blocks."""
    at, glob, local, first = 0, {}, {}, None
    while True:
        b = src.read_at(at, 512)
        need(len(b) == 512, "CORRUPT", f"tar: ends at {at} without end blocks")
        if not any(b):
            break
        need(b[257:262] == b"ustar", "CORRUPT", f"tar: no ustar magic at {at}")
        need(octal(b[148:156], "checksum") == sum(b[:148]) + 256 + sum(b[156:]), "CORRUPT", f"tar: header checksum at {at}")
        size, flag = octal(b[124:136], "size"), b[156:157]
        first, data = (at if first is None else first), at + 512
        if flag in (b"x", b"g"):
            need(size <= MIB, "LIMIT", f"tar: pax header of {size} bytes at {at}")
            target, text = (local if flag == b"x" else glob), src.read_at(data, size)
            while text:
                try:
                    n = int(text[:text.index(b" ")])
                    name, value = text[:n].split(b" ", 1)[1].split(b"=", 1)
                    good = 0 < n <= len(text) and value.endswith(b"\n")
                except (ValueError, IndexError):
                    good = False
                if not good:
                    raise Reject("CORRUPT", f"tar: pax records at {at}")
                target[name.decode(errors="replace")], text = value[:-1].decode("utf-8", "surrogateescape"), text[n:]
            at, first = data + (size + 511) // 512 * 512, (first if flag == b"x" else None)
            continue
        pax = {**glob, **local}
        cut = lambda lo, hi: b[lo:hi].split(b"\0")[0].decode("utf-8", "surrogateescape")
        name = pax.get("path") or (cut(345, 500) + "/" if b[345] else "") + cut(0, 100)
        try:
            size, uid, gid = (int(pax.get(k, v)) for k, v in (("size", size), ("uid", octal(b[108:116], "uid")),
                                                               ("gid", octal(b[116:124], "gid"))))
            mtime = 1000 * float(pax.get("mtime", octal(b[136:148], "mtime")))
        except ValueError:
            raise Reject("CORRUPT", f"tar: pax numbers before {at}")
        need(0 <= size <= src.size - data, "CORRUPT", f"tar: the member at {at} is longer than the stream")
        kind = {b"0": "file", b"\0": "file", b"7": "file", b"5": "dir", b"2": "symlink", b"1": "link"}.get(flag)
        need(kind, "CORRUPT", f"tar: type {flag!r} at {at}")
        yield {"at": first, "data": data, "size": size, "path": tidy(name), "type": kind, "uid": uid, "gid": gid,
               "mtime": mtime, "mode": octal(b[100:108], "mode"), "link": pax.get("linkpath") or cut(157, 257)}
        at, local, first = data + (size + 511) // 512 * 512, {}, None
    need(first is None, "CORRUPT", "tar: a pax header without its member")
    need(src.size - at >= 1024 and src.size % 512 == 0 and not any(map(any, src.pieces(at, src.size - at))), "CORRUPT",
         "tar: the end is not two or more zero blocks")


def tidy(name):
    while name.startswith("./"):
        name = name[2:]
    return "" if name == "." else name.rstrip("/")


def check_tar(index, layer1):
    """Entries and tar members side by side; returns counts."""
    members = (m for m in tar_members(layer1) if m["path"] != "" or m["type"] != "dir")     # the folder itself
    types, last, superseded, count, passed = Counter(), {}, [], 0, {}
    for e in index.entries():
        p, count = e["path"], count + 1
        types[e["type"]] += 1
        last[p] = count
        if e.get("superseded"):
            superseded.append((p, count))
        if "at" not in e:
            continue
        # What could not be read again counts as it is: its line comes a second time, and its member does not.
        m = passed.pop((e["at"], p), None) if e.get("changed") and not e.get("superseded") else None
        m = m or next(members, None)
        need(m is not None, "CORRUPT", f"{p!r}: the tar stream has no such member")
        utf8 = lambda s: s.encode("utf-8", "surrogateescape")
        try:
            same = m["at"] == e["at"] and utf8(m["path"]) == utf8(p)
        except UnicodeEncodeError:
            same = False
        need(same, "CORRUPT", f"{p!r} at {e['at']}: the tar stream has {m['path']!r} at {m['at']}")
        if e.get("superseded"):
            passed[e["at"], p] = m
            continue
        for name in ("type", "data", "size", "uid", "gid"):
            need(m[name] == e[name], "CORRUPT", f"{p!r}: {name} is {e[name]!r}, in the tar stream {m[name]!r}")
        need((m["mode"] ^ e["mode"]) & 0o7777 == 0, "CORRUPT", f"{p!r}: mode differs from the tar stream's")
        need(abs(m["mtime"] - e["mtime"]) < 1000, "CORRUPT", f"{p!r}: mtime differs from the tar stream's")
        if e["type"] in ("symlink", "link"):
            like = tidy if e["type"] == "link" else str
            need(like(m["link"]) == like(e["link"]), "CORRUPT", f"{p!r}: link differs from the tar stream's")
    need(next(members, None) is None, "CORRUPT", "the tar stream has members that the index lacks")
    need(all(last[p] > i for p, i in superseded), "CORRUPT", "a superseded entry is the last of its path")
    return {"entries": count, "types": dict(types), "superseded": len(superseded)}


def read_layer2(src, server=None, ident=None):
    """The whole of layer 2: (what was found, layer 1 as a Source)."""
    frames = list(scan(src, 0, src.size))
    need(frames, "CORRUPT", "no zstd frame at all")
    data = [f for f in frames if f.magic == ZSTD_MAGIC]
    indexes = [i for i, f in enumerate(frames) if f.magic == INDEX_MAGIC and src.read_at(f.off + 8, min(8, f.clen - 8)) == b"MLRINDEX"]
    ours = bool(indexes)
    need(ours or server is None and ident is None, "MISPLACED", "no index, so nothing says whose it is")
    table = parse_table(src, ours) if frames[-1].magic == TABLE_MAGIC else None
    if ours:
        need(len(indexes) == 1, "CORRUPT", "more than one index")
        need(table, "CORRUPT", "an index, and no seek table at the end")
        need(indexes[0] == len(frames) - 2, "CORRUPT", "the index is not the last frame before the seek table")
        for f in data:
            need(f.content is not None and f.checksum, "CORRUPT", f"the frame at {f.off} lacks content size or checksum")
            need(f.content <= MAX_FRAME, "LIMIT", f"the frame at {f.off} holds more than 128 MiB")
    known = all(f.content is not None for f in data)
    if table:
        need(table[0] == frames[-1].off, "CORRUPT", "the seek table is not the last frame")
        need(len(table[1]) == len(frames) - 1, "CORRUPT", f"the seek table has {len(table[1])} entries for {len(frames) - 1} frames")
        for (c, d), f in zip(table[1], frames):
            need(c == f.clen and f.content in (d, None), "CORRUPT", f"the seek table disagrees with the frame at {f.off}")
    out = tempfile.TemporaryFile(buffering=0)
    if known or not table:
        decode(src, data, out)
    else:
        for (c, d), f in zip(table[1], frames):
            if f.magic == ZSTD_MAGIC:
                decode(src, [f._replace(content=d)], out)
    layer1 = Source(out)
    report = {"frames": len(data), "bytes": layer1.size, "sha256": layer1.sha256(), "stored_bytes": src.size,
              "max_frame": max((f.content for f in data), default=0) if known else None,
              "seek_table": "ok" if table else "absent", "index": None}
    if ours:
        index = Index(src, frames[-2], server, ident)
        need(index.head["bytes"] == layer1.size, "CORRUPT", f"the index says {index.head['bytes']} bytes, there are {layer1.size}")
        if index.head["kind"] == "tar":
            counts = check_tar(index, layer1)
        else:
            counts = {"entries": sum(1 for _ in index.entries())}
        report["index"] = {"lines": counts["entries"] + 1, "head": index.head, "sha256": index.sha256, "frames": len(index.frames), **counts}
    return {"foreign": not ours, "layer2": report}, layer1


# ---- commands ------------------------------------------------------------------------------------

def judge(f, key=None, password=None, plain=False, layer3_only=False, server=None, ident=None):
    """(report, Source of the innermost layer read); raises Reject. f is a seekable binary file."""
    result = {"ok": True}
    if plain:
        src = Source(f)
    else:
        sealed = Sealed(f, key, password)
        src = sealed.whole()
        result["layer3"] = {"frames": sealed.frames, "frame_size": sealed.F, "plain_bytes": src.size, "sha256": src.sha256()}
    if layer3_only:
        return result, src
    found, layer1 = read_layer2(src, server, ident)
    result.update(found)
    return result, layer1


def batch(lines):
    """Many objects in one process: a line of arguments of `judge` as a JSON array, a line of its answer."""
    for line in lines:
        main(["judge", *json.loads(line)])


def entry(f, paths, key=None, password=None, plain=False, server=None, ident=None):
    """(counts, Source of the files' bytes one after another), reading only what they need."""
    src = Source(f) if plain else Sealed(f, key, password)
    if not plain:
        src.frame(src.frames - 1)                  # nothing is trusted, the length least of all, before the last frame is
    table = parse_table(src, True)
    need(table and table[1], "UNSUPPORTED", "no seek table: this stream can only be read whole")
    at, rows = table
    need(rows[-1][1] == 0 and rows[-1][0] >= 16, "CORRUPT", "the seek table's last entry is no index")
    need(max(d for c, d in rows) <= MAX_FRAME, "LIMIT", "the seek table has a frame of more than 128 MiB")
    frame = parse_frame(src, at - rows[-1][0], at)
    need(frame.magic == INDEX_MAGIC and frame.clen == rows[-1][0], "CORRUPT", "no index where the seek table has it")
    index = Index(src, frame, server, ident)
    need(index.head["bytes"] == sum(d for c, d in rows), "CORRUPT", "the seek table and the index head disagree on the length")
    last = {e["path"]: e for e in index.entries()}
    out, used = tempfile.TemporaryFile(), set()
    for path in paths:
        e, hops = last.get(path), 0
        while e and e["type"] == "link" and hops < 40:          # a hard link has its target's bytes
            e, hops = last.get(tidy(e["link"])), hops + 1
        need(e and e["type"] == "file" and "data" in e, "NOT_FOUND", f"no file {path!r} in the index")
        lo, hi, off, start, base, frames = e["data"], e["data"] + e["size"], 0, 0, None, []
        for i, (c, d) in enumerate(rows):
            if start < hi and start + d > lo:
                f2 = parse_frame(src, off, off + c)
                need((f2.magic, f2.clen, f2.content, f2.checksum) == (ZSTD_MAGIC, c, d, True), "CORRUPT",
                     f"the seek table disagrees with the frame at {off}")
                frames.append(f2)
                used.add(i)
                base = start if base is None else base
            off, start = off + c, start + d
        part = Source(decode(src, frames))
        for piece in part.pieces(lo - (base or 0), hi - lo):
            out.write(piece)
    counts = {"layer2_frames_read": len(used), "layer2_frames": len(rows) - 1}
    if not plain:
        counts.update(layer3_frames_opened=len(src.opened), layer3_frames=src.frames)
    return counts, Source(out)


# ---- a small writer ------------------------------------------------------------------------------

def payload(n):
    return b"".join(hashlib.sha256(b"payload %d" % i).digest() for i in range(n // 32 + 1))[:n]


def seal(plain, key=None, password=None, log=12, iterations=100_000):
    salt, kdf = os.urandom(16), 0 if password is None else 1
    head = MAGIC + struct.pack(">4BI", 1, 1, kdf, log, iterations if kdf else 0) + salt
    root = derive(kdf, iterations, salt, key, password)
    mac = hmac.new(hkdf32(root, salt, b"millrace/v1/header"), head, hashlib.sha256).digest()
    aes, F, out = AESGCM(hkdf32(root, salt, b"millrace/v1/frames")), 1 << log, [head, mac]
    for i in range(len(plain) // F + 1):
        nonce = os.urandom(12)
        out += [nonce, aes.encrypt(nonce, plain[i * F:(i + 1) * F], mac + struct.pack(">Q", i))]
    return b"".join(out)


def compress(data, *options):
    if not data:                                   # an empty frame with its content size and checksum
        return bytes.fromhex("28b52ffd2400010000") + bytes.fromhex("99e9d851")
    return subprocess.run(["zstd", "-q", "-c", "--check", "--content-size", f"--stream-size={len(data)}", *options],
                          input=data, stdout=subprocess.PIPE, check=True).stdout


def skippable(magic, data):
    return struct.pack("<II", magic, len(data)) + data


def build_layer2(layer1, head, entries, C=65536, lines_a_frame=8):
    rows, out = [], []
    for at in range(0, len(layer1), C):
        out.append(compress(layer1[at:at + C]))
        rows.append((len(out[-1]), len(layer1[at:at + C])))
    lines = [json.dumps(o, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for o in [head, *entries]]
    blocks = [b"".join(lines[i:i + lines_a_frame]) for i in range(0, len(lines), lines_a_frame)]
    out.append(skippable(INDEX_MAGIC, b"MLRINDEX" + b"".join(map(compress, blocks))))
    rows.append((len(out[-1]), 0))
    return b"".join(out) + build_table(rows)


def build_table(rows):
    table = b"".join(struct.pack("<II", *row) for row in rows)
    return skippable(TABLE_MAGIC, table + struct.pack("<IBI", len(rows), 0, FOOTER_MAGIC))


def index_head(kind, size, files, **more):
    return {"v": 1, "kind": kind, "server": "test-server", "id": "20240102T030405678Z", "created": 1704164645678,
            "tool": "millrace_reader.py", "bytes": size, "files": files, "consistency": "none", **more}


def sample_tar():
    """A pax tar with the awkward members, and its index entries as the tarfile module sees them."""
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode="w", format=tarfile.PAX_FORMAT) as t:
        for name, kind, what in [("a.txt", "0", b"old"), ("empty", "0", b""), ("dir", "5", None), ("big.bin", "0", payload(150_000)),
                                 ("dir/" + "long/" * 40 + "name", "0", payload(513)), ("dir/gr\u00fc\u00df \U0001f600.txt", "0", b"x" * 512),
                                 ("sym", "2", "../outside"), ("hard", "1", "big.bin"), ("a.txt", "0", b"the later a.txt wins")]:
            ti = tarfile.TarInfo(name)
            ti.type, ti.mtime, ti.mode, ti.uid, ti.gid = kind.encode(), 1700000000.25, 0o755 if kind == "5" else 0o640, 1000, 3000000
            ti.size, ti.linkname = (len(what), "") if isinstance(what, bytes) else (0, what or "")
            t.addfile(ti, io.BytesIO(what) if isinstance(what, bytes) else None)
    buf.seek(0)
    kinds, entries, files = {b"0": "file", b"5": "dir", b"2": "symlink", b"1": "link"}, [], {}
    with tarfile.open(fileobj=buf) as t:
        for m in t:
            entries.append({"path": m.name, "type": kinds[m.type], "size": m.size, "mode": m.mode, "mtime": m.mtime * 1000,
                            "uid": m.uid, "gid": m.gid, **({"link": m.linkname} if m.linkname else {}),
                            "at": m.offset, "data": m.offset_data})
            if m.isfile():
                files[m.name] = hashlib.sha256(t.extractfile(m).read()).hexdigest()
    entries[0]["superseded"] = True
    return buf.getvalue(), entries, files


def make(folder):
    os.makedirs(folder, exist_ok=True)
    manifest, key, sha = [], hashlib.sha256(b"sample key").digest(), lambda b: hashlib.sha256(b).hexdigest()
    password = "Mu\u0308hle \u00e9 \U0001f511"           # not NFC as it stands: u and a combining diaeresis

    def put(name, plain, secret, **more):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(seal(plain, **secret))
        manifest.append({"file": name, "log2_frame": 12, "plain_bytes": len(plain), "plain_sha256": sha(plain), **more,
                         **({"password": password} if "password" in secret else {"key_hex": key.hex()})})

    F, secrets = 4096, {"key": {"key": key}, "password": {"password": password}}
    for n in (0, 1, F - 1, F, F + 1, 2 * F):
        for how, secret in secrets.items():
            put(f"{how}-{n}.mlr", payload(n), secret, layer3_only=True)
    raw = payload(50_000) * 4
    head = index_head("raw", len(raw), 1)
    row = {"path": "stream", "type": "file", "size": len(raw), "mode": 0o644, "mtime": 1700000000250.5, "uid": 0, "gid": 0, "at": 0, "data": 0}
    tar, entries, files = sample_tar()
    tar_head = index_head("tar", len(tar), 6, mode=0o755, mtime=1700000000250)
    for name, layer1, h, rows, how, contents in (("raw.zst.mlr", raw, head, [row], "password", {"stream": sha(raw)}),
                                                 ("folder.tar.zst.mlr", tar, tar_head, entries, "key", files)):
        put(name, build_layer2(layer1, h, rows), secrets[how], layer3_only=False, layer1_bytes=len(layer1),
            layer1_sha256=sha(layer1), server=h["server"], id=h["id"], kind=h["kind"], files=contents)
    with open(os.path.join(folder, "manifest.json"), "w", encoding="utf-8") as f:
        json.dump(manifest, f, indent=1)
    return len(manifest)


# ---- command line --------------------------------------------------------------------------------

def read_secrets(args):
    key = password = None
    if args.password_file:
        try:
            text = open(args.password_file, "rb").read().decode("utf-8")
        except UnicodeDecodeError:
            raise Usage("the password is not UTF-8")
        password = text[:-2] if text.endswith("\r\n") else text[:-1] if text.endswith("\n") else text
        if not password or "\0" in password:
            raise Usage("the password is empty, or has a NUL")
    if getattr(args, "key_file", None):
        raw = open(args.key_file, "rb").read()
        try:
            key = raw if len(raw) == 32 else bytes.fromhex(raw.decode("ascii").strip())
        except ValueError:
            key = b""
        if len(key) != 32:
            raise Usage("the key file has neither 32 bytes nor 64 hex digits")
    return key, password


def main(argv=None):
    top = argparse.ArgumentParser(description="independent reader of the millrace container, version 1")
    sub = top.add_subparsers(dest="command", required=True)
    for name in ("judge", "cat", "entry", "seed", "make", "batch"):
        p = sub.add_parser(name)
        p.add_argument("dir" if name == "make" else "file")
        if name == "entry":
            p.add_argument("path", nargs="+")
        if name == "seed":
            p.add_argument("--password-file", required=True)
        if name in ("judge", "cat", "entry"):
            g = p.add_mutually_exclusive_group(required=True)
            for option in ("--password-file", "--key-file"):
                g.add_argument(option)
            g.add_argument("--plain", action="store_true")
            for option in ("--server", "--id"):
                p.add_argument(option)
        if name in ("judge", "cat"):
            p.add_argument("--layer3-only", action="store_true")
    args = top.parse_args(argv)
    try:
        if args.command == "make":
            print(json.dumps({"ok": True, "objects": make(args.dir)}))
            return 0
        if args.command == "batch":
            with open(args.file, encoding="utf-8") as f:
                batch(f)
            return 0
        key, password = read_secrets(args)
        with open(args.file, "rb") as f:
            if args.command == "seed":
                out = unseed(f, password)
            elif args.command == "entry":
                counts, out = entry(f, args.path, key, password, args.plain, args.server, args.id)
                print(json.dumps({"ok": True, **counts}), file=sys.stderr)
            else:
                if args.layer3_only and (args.plain or args.server or args.id):
                    raise Usage("--layer3-only goes with a key alone")
                report, out = judge(f, key, password, args.plain, args.layer3_only, args.server, args.id)
                if args.command == "judge":
                    print(json.dumps(report))
                    return 0
            out.f.seek(0)
            shutil.copyfileobj(out.f, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return 0
    except Reject as e:
        print(json.dumps({"ok": False, "error": e.code, "detail": e.detail}), file=sys.stdout if args.command == "judge" else sys.stderr)
        return 1
    except (Usage, OSError) as e:
        print(f"millrace_reader.py: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
