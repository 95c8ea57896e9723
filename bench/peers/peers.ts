import { execFileSync } from 'node:child_process'
import { delimiter, dirname, join } from 'node:path'
import { BIN, ROOT } from '../support.ts'

// The programs that millrace is put beside, as lines of bash, with the settings that each has by default.

/** Debian's packages of the commands. */
const PACKAGES = {
  age: 'age',
  aws: 'awscli',
  borg: 'borgbackup',
  cmp: 'diffutils',
  diff: 'diffutils',
  openssl: 'openssl',
  rclone: 'rclone',
  restic: 'restic',
  tar: 'tar',
  zstd: 'zstd',
} as const
export type Command = keyof typeof PACKAGES

/** Of everything that has a level. */
export const LEVEL = 3
const PASSWORD = 'a bench'

/** A program, or a pipe of several. Its lines use the variables of `peerEnv`, and fail when any part of them does. */
export interface Peer {
  name: string
  needs: readonly Command[]
  /** Not timed: keys, a config, an empty repository in the empty store. */
  prepare: string
  /** The folder $WORLD into the store. */
  backup: string
  /** All of it into the empty folder $OUT. */
  restore: string
  /** The file $FILE of the folder to standard output, where that does not take reading all of it. */
  one?: string
}

const PACK = `tar -C "$WORLD" -cf - . | zstd -q -${LEVEL} -T0`
const UNPACK = 'zstd -q -d | tar -C "$OUT" -xf -'
const AGE_KEYS = 'age-keygen -o "$STATE/age.key" 2> /dev/null && age-keygen -y "$STATE/age.key" > "$STATE/age.pub"'
const AGE = 'age -R "$STATE/age.pub"'
const UNAGE = 'age -d -i "$STATE/age.key"'
const OBSCURED = '"$(printf %s "$PASSPHRASE" | rclone obscure -)"'

function millrace(url: string): Peer {
  const run = '"$NODE" "$BIN"'
  const from = `--from "${url}" --server world`
  return {
    name: 'millrace',
    needs: [],
    prepare: `${run} --version`,
    backup: `${run} backup "$WORLD" --to "${url}" --server world`,
    restore: `${run} restore latest ${from} --target "$OUT"`,
    one: `${run} cat latest "$FILE" ${from}`,
  }
}

function restic(repository: string): Peer {
  const run = `restic -r "${repository}" --cache-dir "$STATE/restic"`
  return {
    name: 'restic',
    needs: ['restic'],
    prepare: `${run} init`,
    backup: `cd "$WORLD" && ${run} backup .`,
    restore: `${run} restore latest --target "$OUT"`,
    one: `${run} dump latest "/$FILE"`,
  }
}

function rclone(config: string): Peer {
  return {
    name: 'tar | zstd | rclone crypt',
    needs: ['tar', 'zstd', 'rclone'],
    prepare: `${config} > "$RCLONE_CONFIG"`,
    backup: `${PACK} | rclone rcat sealed:world.tar.zst`,
    restore: `rclone cat sealed:world.tar.zst | ${UNPACK}`,
  }
}

/** Each into the folder $STORE. */
export function localPeers(): Peer[] {
  const cipher = 'openssl enc -aes-256-ctr -pbkdf2 -pass env:PASSPHRASE'
  return [
    millrace('file://$STORE'),
    {
      name: 'tar | zstd | age',
      needs: ['tar', 'zstd', 'age'],
      prepare: AGE_KEYS,
      backup: `${PACK} | ${AGE} > "$STORE/world.tar.zst.age"`,
      restore: `${UNAGE} "$STORE/world.tar.zst.age" | ${UNPACK}`,
    },
    {
      name: 'tar | zstd | openssl',
      needs: ['tar', 'zstd', 'openssl'],
      prepare: ':',
      backup: `${PACK} | ${cipher} -out "$STORE/world.tar.zst.enc"`,
      restore: `${cipher} -d -in "$STORE/world.tar.zst.enc" | ${UNPACK}`,
    },
    restic('$STORE'),
    {
      name: 'borg',
      needs: ['borg'],
      // As in Borg's quick start; repokey-blake2 is faster only on processors without SHA-256 of their own.
      prepare: 'borg init --encryption repokey "$STORE"',
      backup: `cd "$WORLD" && borg create --compression zstd,${LEVEL} "$STORE::world" .`,
      restore: 'cd "$OUT" && borg extract "$STORE::world"',
      one: 'borg extract --stdout "$STORE::world" "$FILE"',
    },
    rclone(`printf '[sealed]\\ntype = crypt\\nremote = %s\\npassword = %s\\n' "$STORE" ${OBSCURED}`),
  ]
}

/** What the AWS command has to be told beyond this, or its parts of 8 MiB are too many. */
const AWS_EXPECTS_BYTES = 50_000_000_000

/** Each into the bucket $BUCKET at $ENDPOINT. @param bytes what will be backed up. */
export function s3Peers(bytes: number): Peer[] {
  const s3 = '[s3]\\ntype = s3\\nprovider = Ceph\\nenv_auth = true\\nendpoint = %s\\nregion = %s\\n'
  const sealed = '[sealed]\\ntype = crypt\\nremote = s3:%s\\npassword = %s\\n'
  const aws = 'aws --endpoint-url "$ENDPOINT" s3 cp'
  const expected = bytes > AWS_EXPECTS_BYTES ? ` --expected-size ${bytes}` : ''
  return [
    millrace('s3://$BUCKET/backups?endpoint=$ENDPOINT&region=$AWS_REGION&profile=ceph'),
    restic('s3:$ENDPOINT/$BUCKET'),
    rclone(`printf '${s3}${sealed}' "$ENDPOINT" "$AWS_REGION" "$BUCKET" ${OBSCURED}`),
    {
      name: 'tar | zstd | age | aws s3 cp',
      needs: ['tar', 'zstd', 'age', 'aws'],
      prepare: AGE_KEYS,
      backup: `${PACK} | ${AGE} | ${aws}${expected} - "s3://$BUCKET/world.tar.zst.age"`,
      restore: `${aws} "s3://$BUCKET/world.tar.zst.age" - | ${UNAGE} | ${UNPACK}`,
    },
  ]
}

/** Where a peer's lines find things; all of it is the bench's own. */
export interface Places {
  world: string
  /** The folder that is the store, where the store is one. */
  store: string
  out: string
  /** Keys, configs, caches, temporary files: whatever else a program keeps. */
  state: string
  /** Relative to the world. */
  file: string
}

/**
 * The variables of a peer's lines. What the environment says to these programs is left out, and nothing of theirs goes
 * into the home folder; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY stay.
 */
export function peerEnv({ world, store, out, state, file }: Places): NodeJS.ProcessEnv {
  const theirs = Object.keys(process.env).filter((name) => /^(AWS|BORG|MILLRACE|RCLONE|RESTIC|ZSTD|TAR)_/.test(name))
  return {
    ...Object.fromEntries(theirs.map((name) => [name, undefined])),
    WORLD: world,
    STORE: store,
    OUT: out,
    STATE: state,
    FILE: file,
    NODE: process.execPath,
    BIN,
    PASSPHRASE: PASSWORD,
    MILLRACE_PASSWORD: PASSWORD,
    MILLRACE_STATE_DIR: join(state, 'millrace'),
    RESTIC_PASSWORD: PASSWORD,
    BORG_PASSPHRASE: PASSWORD,
    BORG_BASE_DIR: join(state, 'borg'),
    RCLONE_CONFIG: join(state, 'rclone.conf'),
    XDG_CACHE_HOME: join(state, 'cache'),
    XDG_CONFIG_HOME: join(state, 'config'),
    XDG_STATE_HOME: join(state, 'state'),
    // restic writes each pack there first.
    TMPDIR: join(state, 'tmp'),
    AWS_ACCESS_KEY_ID: process.env.AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY: process.env.AWS_SECRET_ACCESS_KEY,
    AWS_REGION: process.env.AWS_REGION ?? 'us-east-1',
    AWS_DEFAULT_REGION: process.env.AWS_REGION ?? 'us-east-1',
    AWS_CONFIG_FILE: join(state, 'aws-config'),
    AWS_SHARED_CREDENTIALS_FILE: join(state, 'aws-credentials'),
    AWS_EC2_METADATA_DISABLED: 'true',
  }
}

/**
 * Sees to it that the commands are there: Debian's packages of those that are not, by apt-get, where this is root.
 * @throws Error that says what to install, when that cannot be done.
 */
export function install(needs: Iterable<Command>): void {
  const commands = [...new Set(needs)]
  const absent = () => commands.filter((command) => pathOf(command) === undefined)
  const packages = [...new Set(absent().map((command) => PACKAGES[command]))].join(' ')
  if (packages !== '') {
    if (process.getuid?.() !== 0 || pathOf('apt-get') === undefined) {
      const how = `Install them, on Debian by: apt-get install ${packages}. As root on Debian, this bench does so itself; benches of millrace alone need none of it: npm run bench -- memory`
      throw new Error(`This bench needs ${absent().join(', ')}, which this machine has not. ${how}`)
    }
    console.error(`Installing what the bench compares with: ${packages} (apt-get).`)
    const script = `source "$0"; install_packages ${packages}`
    try {
      execFileSync('bash', ['-c', script, join(ROOT, 'test/servers/common.sh')], { stdio: ['ignore', 2, 2] })
    } catch {}
    const left = absent()
    if (left.length > 0) {
      throw new Error(`apt-get brought no ${left.join(', ')}: see what apt-get install ${packages} says.`)
    }
  }
  if (commands.includes('aws')) skipShim()
}

/** A shim of pyenv runs much bash before the program itself, which is not what is compared. */
function skipShim(): void {
  if (!pathOf('aws')?.includes('/shims/')) return
  try {
    const real = execFileSync('pyenv', ['which', 'aws'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    process.env.PATH = `${dirname(real.trim())}${delimiter}${process.env.PATH}`
  } catch {}
}

function pathOf(command: string): string | undefined {
  try {
    return execFileSync('bash', ['-c', `command -v ${command}`], { encoding: 'utf8' }).trim()
  } catch {
    return undefined
  }
}

/** What the commands say that they are, as in `tar 1.34`. */
export function versions(needs: Iterable<Command>): string {
  const said = [...new Set(needs)].sort().map((command) => {
    const line = `${command} --version 2>&1 || ${command} version 2>&1`
    const text = execFileSync('bash', ['-c', line], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } })
    return `${command} ${/\d+(\.\d+)+/.exec(text)?.[0] ?? 'of an unknown version'}`
  })
  return said.join(', ')
}
