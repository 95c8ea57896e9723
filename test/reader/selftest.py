#!/usr/bin/env python3
"""The reader against its own writer: samples, every byte flipped, every cut, and objects broken on purpose.

  python3 selftest.py        prints counts; exit status 0 when every case came out as expected
"""
import collections, hashlib, io, json, os, struct, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
sys.dont_write_bytecode = True
import millrace_reader as m
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY, PW, F = bytes(range(32)), "a password", 4096
counts, failures = collections.Counter(), []
sha = lambda b: hashlib.sha256(b).hexdigest()


def outcome(data, **how):
    """('ok', sha256 of the innermost layer, foreign?) or (code, detail, None)."""
    try:
        report, out = m.judge(io.BytesIO(data), **how)
        return "ok", out.sha256(), report.get("foreign")
    except m.Reject as e:
        return e.code, e.detail, None


def expect(group, name, got, want):
    counts[group] += 1
    if got != want:
        failures.append(f"{group}: {name}: wanted {want!r}, got {got!r}")


def flipped(data, at, mask):
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1:]


def expected_cut(n):
    if n < 64:
        return "NOT_SEALED" if n == 0 else "TRUNCATED"
    return "TRUNCATED" if (n - 64) % (F + 28) < 28 else "AUTH_FAILED"


def expected_flip(data, at, mask):
    new = data[at] ^ mask
    if at < 8:
        return "NOT_SEALED"
    if at in (8, 9) or at == 10 and new > 1:
        return "UNSUPPORTED"
    if at == 10 or at == 11 and not 12 <= new <= 24:
        return "BAD_HEADER"
    if 12 <= at < 16:
        n = int.from_bytes(flipped(data, at, mask)[12:16], "big")
        return "BAD_HEADER" if data[10] == 0 or not 100_000 <= n <= 10_000_000 else "WRONG_KEY"
    return "WRONG_KEY" if at < 64 else "AUTH_FAILED"


def layer3():
    for n in (0, 1, F - 1, F, F + 1, 2 * F):
        data = m.seal(m.payload(n), key=KEY)
        expect("layer 3 samples", n, (len(data), outcome(data, key=KEY, layer3_only=True)[:2]),
               (64 + n + 28 * (n // F + 1), ("ok", sha(m.payload(n)))))
    one, two = m.seal(b"x", password=PW), m.seal(m.payload(F + 1), key=KEY)
    for data, how, masks in ((m.seal(b"", key=KEY), {"key": KEY}, [1 << i for i in range(8)]), (two, {"key": KEY}, (1, 128, 255)),
                             (one, {"password": PW}, (1, 16))):
        for at in range(len(data)):
            for mask in masks:
                expect("layer 3 flips", f"{len(data)} bytes, byte {at} ^ {mask}",
                       outcome(flipped(data, at, mask), **how, layer3_only=True)[0], expected_flip(data, at, mask))
    for data in (two, m.seal(m.payload(F), key=KEY), m.seal(b"", key=KEY)):
        for n in range(len(data)):
            expect("layer 3 cuts", n, outcome(data[:n], key=KEY, layer3_only=True)[0], expected_cut(n))
        for extra in (b"\0", bytes(27), bytes(28), bytes(F + 28), data):
            expect("layer 3 broken", f"{len(extra)} bytes after the end", outcome(data + extra, key=KEY, layer3_only=True)[0] != "ok", True)

    def header(kdf=0, log=12, iterations=0, version=1, suite=1, magic=m.MAGIC, key=KEY):
        h = magic + struct.pack(">4BI", version, suite, kdf, log, iterations) + bytes(16)
        root = hashlib.pbkdf2_hmac("sha256", PW.encode(), h[16:], iterations, 32) if kdf == 1 and 0 < iterations < 200_000 else key
        h += m.hmac.new(m.hkdf32(root, h[16:], b"millrace/v1/header"), h, hashlib.sha256).digest()
        return h, AESGCM(m.hkdf32(root, h[16:32], b"millrace/v1/frames"))

    def frames(head, parts, order=None):
        h, aes = head
        return h + b"".join(bytes(12) + aes.encrypt(bytes(12), p, h[32:] + struct.pack(">Q", i))
                            for i, p in zip(order or range(len(parts)), parts))
    full = bytes(F)
    for name, want, data, how in [
            ("control", "ok", frames(header(), [full, b"a"]), KEY), ("a wrong key", "WRONG_KEY", frames(header(key=bytes(32)), [b""]), KEY),
            ("a last frame of F bytes", "TRUNCATED", frames(header(), [full]), KEY), ("no frame", "TRUNCATED", frames(header(), []), KEY),
            ("frames swapped", "AUTH_FAILED", frames(header(), [full, full, b"a"], [1, 0, 2]), KEY),
            ("a frame left out", "AUTH_FAILED", frames(header(), [full, b"a"], [0, 2]), KEY),
            ("indices from 1", "AUTH_FAILED", frames(header(), [full, b"a"], [1, 2]), KEY),
            ("a frame of another object", "AUTH_FAILED", two[:64] + frames(header(), [full])[64:] + two[64 + F + 28:], KEY),
            ("version 2", "UNSUPPORTED", frames(header(version=2), [b""]), KEY), ("suite 2", "UNSUPPORTED", frames(header(suite=2), [b""]), KEY),
            ("suite 0", "UNSUPPORTED", frames(header(suite=0), [b""]), KEY), ("derivation 2", "UNSUPPORTED", frames(header(kdf=2), [b""]), KEY),
            ("2^11", "BAD_HEADER", frames(header(log=11), [b""]), KEY), ("2^25", "BAD_HEADER", frames(header(log=25), [b""]), KEY),
            ("2^24", "ok", frames(header(log=24), [b"abc"]), KEY), ("raw with iterations", "BAD_HEADER", frames(header(iterations=100_000), [b""]), KEY),
            ("99,999", "BAD_HEADER", frames(header(1, 12, 99_999), [b""]), PW), ("100,000", "ok", frames(header(1, 12, 100_000), [b""]), PW),
            ("10,000,001", "BAD_HEADER", frames(header(1, 12, 10_000_001), [b""]), PW), ("0", "BAD_HEADER", frames(header(1), [b""]), PW),
            ("a password for a raw key", "WRONG_KEY", frames(header(), [b""]), PW), ("a key for a password", "WRONG_KEY", one, KEY),
            ("version before the enumerations", "UNSUPPORTED", frames(header(version=9, log=99, iterations=7), [b""]), KEY),
            ("ranges before the MAC", "BAD_HEADER", frames(header(log=40), [b""])[:-1] + b"x", KEY),
            ("MAC before the frames", "WRONG_KEY", flipped(two, 40, 1)[:-1], KEY), ("no magic", "NOT_SEALED", frames(header(magic=b"millrace"), [b""]), KEY)]:
        secret = {"password": how} if isinstance(how, str) else {"key": how}
        expect("layer 3 broken", name, outcome(data, **secret, layer3_only=True)[0], want)
    for other, want in (("a\u0308", "ok"), ("\u00e4", "ok"), ("a", "WRONG_KEY")):
        expect("layer 3 samples", "NFC", outcome(m.seal(b"", password="\u00e4"), password=other, layer3_only=True)[0], want)


def split(stream):
    src = m.Source(io.BytesIO(stream))
    return [stream[f.off:f.off + f.clen] for f in m.scan(src, 0, src.size)]


def rebuilt(parts, rows=None):
    """Parts (data frames and one index) with a seek table that fits."""
    parse = lambda p: m.parse_frame(m.Source(io.BytesIO(p)), 0, len(p))
    return b"".join(parts) + m.build_table(rows or [(len(p), parse(p).content or 0) for p in parts])


def layer2_flips_and_cuts():
    layer1 = m.payload(300)
    row = {"path": "stream", "type": "file", "size": 300, "mode": 420, "mtime": 1.5, "uid": 0, "gid": 0, "at": 0, "data": 0}
    small = m.build_layer2(layer1, m.index_head("raw", 300, 1), [row], C=100)
    parts = split(small)
    borders = {sum(map(len, parts[:i])) for i in range(len(parts))} - {0}
    index_at, table_at = sum(map(len, parts[:-2])), sum(map(len, parts[:-1]))
    jobs = [("flip", at, mask) for at in range(len(small)) for mask in (1, 128)] + [("cut", n, 0) for n in range(len(small))]
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda j: outcome(flipped(small, j[1], j[2]) if j[0] == "flip" else small[:j[1]], plain=True), jobs)
        for (kind, at, mask), (code, what, foreign) in zip(jobs, results):
            if kind == "flip":
                # no byte may change layer 1 unnoticed; only the index's own magic may make the stream a foreign one
                fine = code in ("CORRUPT", "LIMIT", "UNSUPPORTED") or code == "ok" and what == sha(layer1) and (
                    not foreign or index_at <= at < index_at + 16)
                counts["layer 2 flips, " + ("rejected" if code != "ok" else "same layer 1, " + ("foreign" if foreign else "unused bits"))] += 1
            else:
                # a bare stream that ends between frames before its index is a foreign one, and shorter: nothing can tell
                fine = code == "CORRUPT" and at not in borders - {table_at} or code == "ok" and foreign and at in borders - {table_at}
                counts["layer 2 cuts, " + ("rejected" if code != "ok" else "foreign (at a data frame's end)")] += 1
            if not fine:
                failures.append(f"layer 2 {kind} at {at} ^ {mask}: {code} {what} foreign={foreign}")


def layer2_broken():
    layer1 = m.payload(3000)
    head, row = m.index_head("raw", 3000, 1), {"path": "s", "type": "file", "size": 3000, "at": 0, "data": 0}
    good = split(m.build_layer2(layer1, head, [row], C=1000))[:-1]
    data, index = good[:-1], good[-1]
    build = lambda h=head, rows=(row,), **o: m.build_layer2(layer1, h, rows, C=1000, **o)
    drop = lambda name: {k: v for k, v in head.items() if k != name}
    idx = lambda body: m.skippable(m.INDEX_MAGIC, body)
    line = json.dumps(head).encode() + b"\n"
    zstd = lambda *o, body=layer1: subprocess.run(["zstd", "-q", "-c", *o], input=body, stdout=subprocess.PIPE, check=True).stdout
    rows = [(len(p), 1000) for p in data] + [(len(index), 0)]
    table = lambda new, flags=0, n=None, foot=m.FOOTER_MAGIC: b"".join(good) + m.skippable(
        m.TABLE_MAGIC, b"".join(struct.pack("<II", *r) for r in new) + struct.pack("<IBI", len(new) if n is None else n, flags, foot))
    skip, big = m.skippable(0x184D2A50, b"whatever"), (129 << 20).to_bytes(4, "little")
    cases = [
        ("control", "ok", build(), False), ("rebuilt", "ok", rebuilt(good), False), ("table", "ok", table(rows), False),
        ("unused descriptor bits", "ok", table(rows, 3), False), ("reserved descriptor bits", "CORRUPT", table(rows, 4), None),
        ("checksum flag, 8-byte rows", "CORRUPT", table(rows, 128), None), ("footer magic", "CORRUPT", table(rows, foot=1), None),
        ("a count too large", "CORRUPT", table(rows, n=5), None), ("2^27 + 1 entries", "LIMIT", table(rows, n=(1 << 27) + 1), None),
        ("an entry missing", "CORRUPT", table(rows[:-1]), None), ("an entry too many", "CORRUPT", table(rows + [(0, 0)]), None),
        ("c shifted", "CORRUPT", table([(rows[0][0] + 1, 1000), (rows[1][0] - 1, 1000)] + rows[2:]), None),
        ("d shifted", "CORRUPT", table([(rows[0][0], 1001), (rows[1][0], 999)] + rows[2:]), None),
        ("the index with a size", "CORRUPT", table(rows[:-1] + [(len(index), 1)]), None),
        ("no seek table", "CORRUPT", b"".join(good), None), ("no index, no table", "ok", b"".join(data), True),
        ("no index", "ok", rebuilt(data), True), ("index first", "CORRUPT", rebuilt([index] + data), None),
        ("two indices", "CORRUPT", rebuilt(good + [index]), None), ("data after the index", "CORRUPT", rebuilt(good + data[:1]), None),
        ("a skippable after the table", "CORRUPT", rebuilt(good) + skip, None), ("an unknown skippable in the table", "ok", rebuilt([skip] + good), False),
        ("an unknown skippable, not in the table", "CORRUPT", skip + rebuilt(good), None), ("bytes after", "CORRUPT", rebuilt(good) + b"\0", None),
        ("a frame missing", "CORRUPT", rebuilt(good[1:]), None), ("a frame twice", "CORRUPT", rebuilt(data[:1] + good), None),
        ("no checksum", "CORRUPT", rebuilt([zstd("--no-check", "--stream-size=3000"), index]), None),
        ("no content size", "CORRUPT", rebuilt([zstd()] + [index], [(len(zstd()), 3000), (len(index), 0)]), None),
        ("another C", "ok", rebuilt([zstd("--stream-size=3000"), index]), False), ("an empty frame", "ok", rebuilt([m.compress(b"")] + good), False),
        ("a frame of 129 MiB", "LIMIT", rebuilt([b"\x28\xb5\x2f\xfd\xa4" + big + b"\1\0\0" + bytes(4), index], [(1, 1)]), None),
        ("129 MiB with a small window", "LIMIT", rebuilt([b"\x28\xb5\x2f\xfd\x84\0" + big + b"\1\0\0" + bytes(4), index]), None),
        ("a window over 128 MiB", "LIMIT", b"\x28\xb5\x2f\xfd\0\x89\1\0\0", None), ("reserved bit", "CORRUPT", b"\x28\xb5\x2f\xfd\x28\0\1\0\0", None),
        ("a dictionary", "CORRUPT", b"\x28\xb5\x2f\xfd\x21\7\0\1\0\0", None), ("a reserved block", "CORRUPT", b"\x28\xb5\x2f\xfd\x20\0\7\0\0", None),
        ("nothing", "CORRUPT", b"", None), ("text", "CORRUPT", b"plain text", None), ("only skippables", "ok", skip, True),
        ("foreign, one frame", "ok", zstd(), True), ("foreign, many", "ok", zstd() + skip + zstd("--no-check", "--stream-size=3000"), True),
        ("foreign, cut", "CORRUPT", zstd()[:-5], None), ("foreign, wrong checksum", "CORRUPT", flipped(zstd(), -1 % len(zstd()), 1), None),
        ("empty layer 1", "ok", m.build_layer2(b"", m.index_head("raw", 0, 0), []), False),
        ("foreign seekable with checksums", "ok", data[0] + m.skippable(m.TABLE_MAGIC, struct.pack("<III", len(data[0]), 1000, 7)
                                                                       + struct.pack("<IBI", 1, 128, m.FOOTER_MAGIC)), True),
        ("foreign seekable without sizes", "ok", rebuilt([zstd()], [(len(zstd()), 3000)]), True),
        ("foreign seekable that lies", "CORRUPT", rebuilt([zstd()], [(len(zstd()), 2999)]), None),
        ("index: no frames", "CORRUPT", rebuilt(data + [idx(b"MLRINDEX")]), None), ("index: garbage", "CORRUPT", rebuilt(data + [idx(b"MLRINDEXgarbage")]), None),
        ("index: no content size", "CORRUPT", rebuilt(data + [idx(b"MLRINDEX" + zstd(body=line))]), None),
        ("index: skippable inside", "CORRUPT", rebuilt(data + [idx(b"MLRINDEX" + m.compress(line) + skip)]), None),
        ("index: half a line", "CORRUPT", rebuilt(data + [idx(b"MLRINDEX" + m.compress(line[:9]) + m.compress(line[9:]))]), None),
        ("index: no last newline", "CORRUPT", rebuilt(data + [idx(b"MLRINDEX" + m.compress(line[:-1]))]), None),
        ("index: a blank line", "CORRUPT", rebuilt(data + [idx(b"MLRINDEX" + m.compress(line + b"\n"))]), None),
        ("index: an array", "CORRUPT", rebuilt(data + [idx(b"MLRINDEX" + m.compress(line + b"[1]\n"))]), None),
        ("index: not UTF-8", "CORRUPT", rebuilt(data + [idx(b"MLRINDEX" + m.compress(line + b'{"path":"\xff"}\n'))]), None),
        ("index: NaN", "CORRUPT", rebuilt(data + [idx(b"MLRINDEX" + m.compress(line + b'{"path":"a","type":"file","mtime":NaN}\n'))]), None),
        ("index: over 1 MiB", "LIMIT", rebuilt(data + [idx(b"MLRINDEX" + m.compress(line + b'{"a":"%s"}\n' % (b"x" * m.MIB)))]), None),
        ("index: head alone", "ok", build(rows=()), False), ("index: unknown keys", "ok", build({**head, "new": [1]}, [{**row, "x": {}}]), False),
        ("head: v 2", "UNSUPPORTED", build({**head, "v": 2}), None), ("head: v text", "CORRUPT", build({**head, "v": "1"}), None),
        ("head: kind", "CORRUPT", build({**head, "kind": "zip"}), None), ("head: bytes", "CORRUPT", build({**head, "bytes": 2999}), None),
        ("head: bytes true", "CORRUPT", build({**head, "bytes": True}), None), ("head: bytes < 0", "CORRUPT", build({**head, "bytes": -1}), None),
        *((f"head: no {k}", "CORRUPT", build(drop(k)), None) for k in head),
        ("tar head without mode", "CORRUPT", build({**head, "kind": "tar"}), None),
        ("not a tar", "CORRUPT", build({**head, "kind": "tar", "mode": 493, "mtime": 1}), None),
        *((f"entry: {k}={v!r}", "CORRUPT", build(rows=[{**row, k: v}]), None) for k, v in
          [("path", p) for p in ("/a", "./a", "a/", "", "..", "a/../b", "a//b", "a\0", 1)] + [("type", "fifo"), ("changed", "no"), ("size", 3001),
           ("data", 1), ("data", -1), ("size", 1.5), ("superseded", 1.5), ("type", "link")]),
    ]
    tar, entries, files = m.sample_tar()
    th = m.index_head("tar", len(tar), 6, mode=493, mtime=1)
    with_rows = lambda new: m.build_layer2(tar, th, new)
    changed = lambda i, **new: with_rows(entries[:i] + [{**entries[i], **new}] + entries[i + 1:])
    cases += [("tar", "ok", with_rows(entries), False), ("tar: end cut", "CORRUPT", m.build_layer2(tar[:entries[-1]["data"] + 512],
               {**th, "bytes": entries[-1]["data"] + 512}, entries), None),
              *((f"tar: {k}={v!r} in entry {i}", "CORRUPT", changed(i, **{k: v}), None) for i, k, v in
                [(3, "at", entries[3]["at"] + 512), (3, "at", 0), (3, "data", entries[3]["data"] + 512), (3, "size", 149_999), (3, "path", "big"),
                 (3, "type", "dir"), (3, "mode", 0o644), (3, "mtime", 1), (3, "uid", 1), (3, "gid", 1), (6, "link", "elsewhere"), (7, "link", "empty"),
                 (8, "superseded", True), (3, "at", None), (0, "at", 512)]),
              ("tar: entries swapped", "CORRUPT", with_rows([entries[1], entries[0]] + entries[2:]), None),
              ("tar: an entry missing", "CORRUPT", with_rows(entries[:2] + entries[3:]), None), ("tar: the last missing", "CORRUPT", with_rows(entries[:-1]), None),
              ("tar: an entry too many", "CORRUPT", with_rows(entries + [{**entries[-1], "path": "zz"}]), None),
              ("tar: a superseded one may differ in size", "ok", changed(0, size=2), False),
              *((f"tar: {how}", "ok", changed(3, changed=how), False) for how in ("grew", "shrank", "modified", "vanished", "unreadable")),
              ("tar: superseded, then its line again", "ok", with_rows(entries[:3] + [{**entries[3], "superseded": True}] + entries[4:]
               + [{**entries[3], "changed": "vanished"}]), False),
              ("tar: a line again that was not superseded", "CORRUPT", with_rows(entries + [{**entries[3], "changed": "vanished"}]), None),
              ("tar: another line again", "CORRUPT", with_rows(entries[:3] + [{**entries[3], "superseded": True}] + entries[4:]
               + [{**entries[3], "changed": "vanished", "size": 1}]), None)]
    for name, want, stream, foreign in cases:
        got = outcome(stream, plain=True)
        expect("layer 2 broken", name, (got[0], got[2]), (want, foreign))
    stream = build()
    for how, want in (({"server": "test-server", "ident": head["id"]}, "ok"), ({"server": "x"}, "MISPLACED"), ({"ident": "x"}, "MISPLACED")):
        expect("layer 2 broken", how, outcome(stream, plain=True, **how)[0], want)
        expect("layer 2 broken", how, outcome(m.seal(stream, key=KEY), key=KEY, **how)[0], want)
    expect("layer 2 broken", "no index, and a name", outcome(rebuilt(data), plain=True, server="test-server")[0], "MISPLACED")
    expect("layer 2 broken", "a bare stream with a key", outcome(stream, key=KEY)[0], "NOT_SEALED")
    expect("layer 2 broken", "a container as a bare stream", outcome(m.seal(stream, key=KEY), plain=True)[0], "CORRUPT")


def entries():
    tar, rows, files = m.sample_tar()
    sealed = m.seal(m.build_layer2(tar, m.index_head("tar", len(tar), 6, mode=493, mtime=1), rows), key=KEY)

    def get(data, *paths):
        try:
            n, out = m.entry(io.BytesIO(data), paths, key=KEY)
            return out.sha256(), n
        except m.Reject as e:
            return e.code, None
    for path, digest in {**files, "hard": files["big.bin"]}.items():
        got, n = get(sealed, path)
        expect("entries", path, got, digest)
        if path == "a.txt":
            expect("entries", "frames read", (n["layer2_frames_read"], n["layer3_frames_opened"] < n["layer3_frames"] // 2), (1, True))
    expect("entries", "a directory", get(sealed, "dir")[0], "NOT_FOUND")
    expect("entries", "absent", get(sealed, "nope")[0], "NOT_FOUND")
    expect("entries", "no seek table", get(m.seal(m.compress(b"abc"), key=KEY), "a")[0], "UNSUPPORTED")
    expect("entries", "last frame damaged", get(flipped(sealed, len(sealed) - 1, 1), "empty")[0], "AUTH_FAILED")
    expect("entries", "a frame it does not need, damaged", get(flipped(sealed, 64 + 10 * (F + 28) + 50, 1), "a.txt")[0], files["a.txt"])
    expect("entries", "a frame it needs, damaged", get(flipped(sealed, 64 + 10 * (F + 28) + 50, 1), "big.bin")[0], "AUTH_FAILED")
    for cut in range(len(sealed) - 2 * (F + 28), len(sealed), 97):
        expect("entries", f"cut at {cut}", get(sealed[:cut], "empty")[0] in ("TRUNCATED", "AUTH_FAILED"), True)


def seeds_and_commands(folder):
    def run(*args):
        p = subprocess.run([sys.executable, m.__file__, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return p.returncode, p.stdout

    def put(name, data):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
        return f.name
    pw, salt, nonce = put("pw", PW.encode() + b"\n"), bytes(range(16)), bytes(12)
    key = hashlib.pbkdf2_hmac("sha256", PW.encode(), salt, 100_000, 32)
    object_ = salt + nonce + AESGCM(key).encrypt(nonce, m.compress(b"seed layout"), None)
    expect("seed", "command", run("seed", put("seed", object_), "--password-file", pw), (0, m.compress(b"seed layout")))
    expect("seed", "command, damaged", run("seed", put("seed", flipped(object_, 30, 1)), "--password-file", pw), (1, b""))

    def unseed(data):
        try:
            return m.unseed(io.BytesIO(data), PW).sha256()
        except m.Reject as e:
            return e.code
    for at in range(len(object_)):
        expect("seed", f"flip {at}", unseed(flipped(object_, at, 1)), "AUTH_FAILED")
        expect("seed", f"cut {at}", unseed(object_[:at]), "TRUNCATED" if at < 44 else "AUTH_FAILED")
    expect("seed", "a container", unseed(m.seal(b"", key=KEY)), "UNSUPPORTED")
    made = os.path.join(folder, "made")
    expect("commands", "make", run("make", made)[0], 0)
    for o in json.load(open(os.path.join(made, "manifest.json"), encoding="utf-8")):
        path = os.path.join(made, o["file"])
        how = ["--key-file", put("key", o["key_hex"].encode())] if "key_hex" in o else ["--password-file", put("pw2", o["password"].encode())]
        more = ["--layer3-only"] if o["layer3_only"] else ["--server", o["server"], "--id", o["id"]]
        code, text = run("judge", path, *how, *more)
        report = json.loads(text)
        expect("commands", o["file"], (code, report["ok"], report["layer3"]["sha256"]), (0, True, o["plain_sha256"]))
        expect("commands", "cat " + o["file"], sha(run("cat", path, *how, *more)[1]), o["plain_sha256"] if o["layer3_only"] else o["layer1_sha256"])
        for name, digest in o.get("files", {}).items():
            expect("commands", "entry " + name, sha(run("entry", path, *how, "--", name)[1]), digest)
    code, text = run("judge", path, *how, "--server", "x")
    expect("commands", "misplaced", (code, json.loads(text)["error"]), (1, "MISPLACED"))
    for args in (("judge", path), ("judge", path, "--plain", *how), ("judge", path + "x", *how), ("nothing",),
                 ("judge", path, "--password-file", put("empty", b"\n")), ("judge", path, "--key-file", put("short", bytes(31)))):
        expect("commands", args, run(*args)[0], 2)
    expect("commands", "a raw 32-byte key file", run("judge", path, "--key-file", put("raw", bytes.fromhex(o["key_hex"])))[0], 0)


def main():
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for step in (layer3, layer2_flips_and_cuts, layer2_broken, entries, lambda: seeds_and_commands(folder)):
            step()
    for name, n in sorted(counts.items()):
        print(f"{n:7}  {name}")
    print(f"{sum(counts.values()):7}  cases, {len(failures)} failures, {time.monotonic() - started:.1f} s")
    for text in failures[:40]:
        print("FAILED", text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
