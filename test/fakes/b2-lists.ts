import { type B2Store, compareNames, type FakeFile, refusal } from './b2-store.ts'

type Body = Record<string, unknown>

/** A folder, as listings with a delimiter show what is beneath one. */
interface Folder {
  name: string
  folder: true
}

/** https://www.backblaze.com/apidocs/b2-list-file-names */
export function listFileNames(store: B2Store, body: Body): Body {
  const { bucketId, prefix, from, count } = frame(body)
  const names = new Set<string>()
  const visible = store.sorted(bucketId, prefix).filter((file) => {
    if (file.action === 'start' || names.has(file.name)) return false
    names.add(file.name)
    return file.action === 'upload'
  })
  const entries = fold(visible, prefix, body.delimiter).filter((entry) => compareNames(entry.name, from) >= 0)
  return {
    files: entries.slice(0, count).map((one) => describe(store, one)),
    nextFileName: entries[count]?.name ?? null,
  }
}

/** https://www.backblaze.com/apidocs/b2-list-file-versions: unfinished large files too. */
export function listFileVersions(store: B2Store, body: Body): Body {
  const { bucketId, prefix, from, count } = frame(body)
  const { startFileId } = body
  if (startFileId && from === '') throw refusal(400, 'bad_request', 'startFileName is required with startFileId')
  const all = fold(store.sorted(bucketId, prefix), prefix, body.delimiter)
  let start = all.findIndex((entry) => compareNames(entry.name, from) >= 0)
  if (startFileId) start = all.findIndex((entry) => 'fileId' in entry && entry.fileId === startFileId)
  const entries = start < 0 ? [] : all.slice(start)
  const next = entries[count]
  return {
    files: entries.slice(0, count).map((one) => describe(store, one)),
    nextFileName: next?.name ?? null,
    nextFileId: next && 'fileId' in next ? next.fileId : null,
  }
}

/** https://www.backblaze.com/apidocs/b2-list-unfinished-large-files: the oldest first. */
export function listUnfinished(store: B2Store, body: Body): Body {
  const { bucketId, namePrefix, startFileId, maxFileCount } = body
  const count = Number(maxFileCount ?? 100)
  if (!(count >= 1 && count <= 100)) throw refusal(400, 'out_of_range', `maxFileCount out of range: ${maxFileCount}`)
  const open = store
    .sorted(String(bucketId), String(namePrefix ?? ''))
    .filter((file) => file.action === 'start' && (!startFileId || file.fileId >= String(startFileId)))
    .sort((a, b) => (a.fileId < b.fileId ? -1 : 1))
  return { files: open.slice(0, count).map((file) => store.describe(file)), nextFileId: open[count]?.fileId ?? null }
}

function frame(body: Body): { bucketId: string; prefix: string; from: string; count: number } {
  const { bucketId, prefix, startFileName, maxFileCount } = body
  const count = Number(maxFileCount || 100)
  if (!(count >= 1 && count <= 10_000)) throw refusal(400, 'out_of_range', `maxFileCount out of range: ${maxFileCount}`)
  return { bucketId: String(bucketId), prefix: String(prefix ?? ''), from: String(startFileName ?? ''), count }
}

function fold(files: FakeFile[], prefix: string, delimiter: unknown): (FakeFile | Folder)[] {
  if (typeof delimiter !== 'string' || delimiter === '') return files
  const folders = new Set<string>()
  return files.flatMap((file): (FakeFile | Folder)[] => {
    const border = file.name.indexOf(delimiter, prefix.length)
    if (border < 0) return [file]
    const name = file.name.slice(0, border + delimiter.length)
    if (folders.has(name)) return []
    folders.add(name)
    return [{ name, folder: true }]
  })
}

function describe(store: B2Store, entry: FakeFile | Folder): Body {
  if (!('folder' in entry)) return store.describe(entry)
  const none = { contentSha1: null, contentType: null, fileId: null, fileInfo: {} }
  return {
    accountId: store.accountId,
    action: 'folder',
    contentLength: 0,
    fileName: entry.name,
    uploadTimestamp: 0,
    ...none,
  }
}
