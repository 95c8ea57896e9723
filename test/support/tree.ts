import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import type { TestContext } from 'node:test'

/** One thing in a tree; its path is relative, bytes for names that are not UTF-8. */
export type TreeItem = { path: string | Buffer; mode?: number; mtime?: number; owner?: [number, number] } & (
  | { type: 'file'; content?: string | Buffer }
  | { type: 'dir' }
  | { type: 'symlink'; target: string | Buffer }
  | { type: 'link'; target: string }
  | { type: 'fifo' }
  | { type: 'socket' }
)

export interface SnapshotEntry {
  type: string
  mode: number
  /** Whole milliseconds. */
  mtime: number
  owner: string
  size?: number
  hash?: string
  target?: string
  /** The first path of the same inode. */
  group?: string
}

/** A new temporary folder that is removed when the test ends. */
export function tempFolder(t: TestContext): string {
  const dir = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), 'millrace-tree-'))
  t.after(() => {
    openFolders(Buffer.from(dir))
    fs.rmSync(dir, { recursive: true, force: true })
  })
  return dir
}

/** Whoever is not root cannot empty a read-only folder. */
function openFolders(dir: Buffer): void {
  if (process.getuid?.() === 0) return
  fs.chmodSync(dir, 0o700)
  for (const entry of fs.readdirSync(dir, { withFileTypes: true, encoding: 'buffer' })) {
    if (entry.isDirectory()) openFolders(Buffer.concat([dir, Buffer.from('/'), entry.name]))
  }
}

function under(dir: string, name: string | Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${dir}/`), typeof name === 'string' ? Buffer.from(name) : name])
}

async function makeSocket(file: string): Promise<void> {
  // The path of a socket is short, and closing a server removes it: so bind nearby, link, close.
  const near = path.join(os.tmpdir(), `s${process.pid}${Math.random().toString(36).slice(2)}`)
  const server = net.createServer()
  await new Promise<void>((resolve) => server.listen(near, resolve))
  fs.linkSync(near, file)
  await new Promise((resolve) => server.close(resolve))
}

/** Makes the items in order (parents first), then sets modes and times (ms), deepest first. */
export async function makeTree(dir: string, items: TreeItem[]): Promise<void> {
  fs.mkdirSync(dir, { recursive: true })
  for (const item of items) {
    const file = under(dir, item.path)
    if (item.type === 'file') fs.writeFileSync(file, item.content ?? '')
    else if (item.type === 'dir') fs.mkdirSync(file)
    else if (item.type === 'symlink') fs.symlinkSync(item.target, file)
    else if (item.type === 'link') fs.linkSync(under(dir, item.target), file)
    else if (item.type === 'fifo') execFileSync('mkfifo', [String(file)])
    else await makeSocket(String(file))
  }
  for (const item of [...items].reverse()) {
    const file = under(dir, item.path)
    if (item.owner) fs.lchownSync(file, ...item.owner)
    if (item.mode !== undefined && item.type !== 'symlink') fs.chmodSync(file, item.mode)
    if (item.mtime === undefined || item.type === 'link') continue
    const time = new Date(item.mtime)
    fs.lutimesSync(file, time, time)
  }
}

/** One of everything that a world folder can hold and an archive has to keep. */
export function oddTree(): TreeItem[] {
  const long = 'n'.repeat(255)
  const mtime = 1_600_000_000_123
  const deep = ['d'.repeat(120), 'e'.repeat(120), 'f'.repeat(120)]
  return [
    { path: 'a', type: 'dir', mode: 0o755, mtime },
    { path: 'a/b', type: 'file', content: 'b', mode: 0o644, mtime: mtime + 1 },
    { path: 'a/z', type: 'file', content: Buffer.alloc(512, 1), mode: 0o600, mtime: mtime + 998 },
    { path: 'a-b', type: 'file', content: 'sorts before a/b', mtime: 1 },
    { path: 'a0', type: 'file', content: Buffer.alloc(513, 2), mode: 0o4755, mtime: -1500 },
    { path: 'empty', type: 'dir', mode: 0o1777, mtime: 5_000_000_000_500 },
    { path: 'readonly', type: 'dir', mode: 0o555, mtime },
    { path: 'readonly/inside', type: 'file', content: 'x', mode: 0o400, mtime },
    { path: 'zero', type: 'file', mode: 0o666, mtime: 0 },
    { path: 'large', type: 'file', content: Buffer.alloc(3_000_001, 'large '), mode: 0o640, mtime },
    { path: 'edge32k', type: 'file', content: Buffer.alloc(32 * 1024, 'e'), mtime },
    { path: 'edge32k1', type: 'file', content: Buffer.alloc(32 * 1024 + 1, 'e'), mtime },
    { path: 'line\nbreak', type: 'file', content: 'newline', mtime },
    { path: ' space ', type: 'file', content: 'spaces', mtime },
    { path: 'wörld 🌍', type: 'dir', mtime },
    { path: 'wörld 🌍/région', type: 'file', content: 'unicode', mtime },
    { path: '\ufeffbom', type: 'file', content: 'bom', mtime },
    { path: 'rep\ufffdlaced', type: 'file', content: 'U+FFFD', mtime },
    { path: 'back\\slash', type: 'file', content: 'backslash', mtime },
    { path: '-rf', type: 'file', content: 'dash', mtime },
    { path: 'C:\\x', type: 'file', content: 'drive', mtime },
    { path: 'quote"\'$(x)', type: 'file', content: 'quotes', mtime },
    { path: long, type: 'file', content: 'long', mtime },
    { path: `l${'ö'.repeat(127)}`, type: 'dir', mtime },
    { path: deep[0]!, type: 'dir', mtime },
    { path: deep.slice(0, 2).join('/'), type: 'dir', mtime },
    { path: deep.join('/'), type: 'dir', mtime },
    { path: `${deep.join('/')}/${long}`, type: 'file', content: 'deep', mtime },
    { path: `${deep.join('/')}/link`, type: 'symlink', target: `../${long}`, mtime },
    { path: 'x'.repeat(100), type: 'file', content: '100', mtime },
    { path: 'x'.repeat(101), type: 'file', content: '101', mtime },
    { path: `p${'x'.repeat(98)}`, type: 'dir', mtime },
    { path: `p${'x'.repeat(98)}/${'y'.repeat(100)}`, type: 'file', content: 'prefix', mtime },
    { path: 'hard1', type: 'file', content: 'shared', mode: 0o644, mtime },
    { path: 'a/hard2', type: 'link', target: 'hard1' },
    { path: `z${'h'.repeat(150)}`, type: 'link', target: 'hard1' },
    { path: 'deephard', type: 'link', target: `${deep.join('/')}/${long}` },
    { path: 'sym', type: 'symlink', target: 'a/b', mtime },
    { path: 'dangling', type: 'symlink', target: 'nowhere/at all', mtime: mtime + 7 },
    { path: 'outside', type: 'symlink', target: '/etc/hostname', mtime },
    { path: 'symdir', type: 'symlink', target: '../..', mtime },
    { path: 'symlong', type: 'symlink', target: 'ü'.repeat(400), mtime },
    { path: 'symhundred', type: 'symlink', target: 't'.repeat(100), mtime },
  ]
}

/** What an archive leaves out: bytes that are no UTF-8, a fifo, a socket. */
export function leftOutTree(): TreeItem[] {
  return [
    { path: Buffer.from('w\xf6rld.dat', 'latin1'), type: 'file', content: 'latin1' },
    { path: Buffer.from('d\xff', 'latin1'), type: 'dir' },
    { path: Buffer.from('d\xff/inside', 'latin1'), type: 'file', content: 'inside' },
    { path: 'badlink', type: 'symlink', target: Buffer.from('t\xff', 'latin1') },
    { path: 'pipe', type: 'fifo' },
    { path: 'socket', type: 'socket' },
  ]
}

/** Everything that can be told of a tree, by path (bytes as latin1). */
export function snapshotTree(dir: string): Map<string, SnapshotEntry> {
  const found = new Map<string, SnapshotEntry>()
  const inodes = new Map<string, string>()
  const visit = (prefix: string): void => {
    const names = fs.readdirSync(under(dir, Buffer.from(prefix, 'latin1')), 'latin1').sort()
    for (const name of names) {
      const key = prefix + name
      const file = under(dir, Buffer.from(key, 'latin1'))
      const stat = fs.lstatSync(file, { bigint: true })
      const type = stat.isFile() ? 'file' : stat.isDirectory() ? 'dir' : stat.isSymbolicLink() ? 'symlink' : 'special'
      const entry: SnapshotEntry = {
        type,
        mode: Number(stat.mode) & 0o7777,
        mtime: Number(stat.mtimeNs / 1_000_000n),
        owner: `${stat.uid}:${stat.gid}`,
      }
      if (type === 'symlink') entry.target = fs.readlinkSync(file, 'latin1')
      if (type === 'file') {
        entry.size = Number(stat.size)
        entry.hash = createHash('sha256').update(fs.readFileSync(file)).digest('hex')
        if (stat.nlink > 1n) {
          const inode = `${stat.dev}:${stat.ino}`
          if (!inodes.has(inode)) inodes.set(inode, key)
          entry.group = inodes.get(inode)!
        }
      }
      found.set(key, entry)
      if (type === 'dir') visit(`${key}/`)
    }
  }
  visit('')
  return found
}

/** The differences of two trees, one line each; none when they are equal. */
export function diffTrees(a: string, b: string, ignore: (keyof SnapshotEntry)[] = []): string[] {
  const [left, right] = [snapshotTree(a), snapshotTree(b)]
  const lines: string[] = []
  for (const key of new Set([...left.keys(), ...right.keys()])) {
    const [one, two] = [left.get(key), right.get(key)]
    if (!one || !two) {
      lines.push(`${JSON.stringify(key)}: only in ${one ? a : b}`)
      continue
    }
    for (const field of new Set([...Object.keys(one), ...Object.keys(two)]) as Set<keyof SnapshotEntry>) {
      if (ignore.includes(field) || one[field] === two[field]) continue
      lines.push(`${JSON.stringify(key)}: ${field} ${one[field]} is not ${two[field]}`)
    }
  }
  return lines
}
