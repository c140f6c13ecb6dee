/** Other filesystems of the same kind, mounted over directories on the same disk. Who is not installed does not take part. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { execute } from './shell.ts'
import { BenchError } from './workload.ts'

const START_MS_MAX = 20_000
/** to store what it still has */
const STOP_MS_MAX = 60_000
/** for a process that was killed, or for a mount that nobody serves any more */
const END_MS_MAX = 10_000
/** The kernel's own default for what can be allowed (fs.nr_open), rounded down. */
const OPEN_FILES_MAX = 1_000_000
/** Where Debian's libfuse3-dev puts it. */
const PASSTHROUGH_SOURCE = '/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c'
const FUSE_NATIVE_SERVER = fileURLToPath(new URL('./peers/fuse-native.js', import.meta.url))

export interface Peer {
  readonly name: string
  /** what to install where it is missing */
  readonly from: string
  isInstalled(): boolean
  /** it makes files as who serves, whoever asked, or refuses others some of what they may do: only root can be measured there */
  readonly onlyRoot?: true
  /** Mounts; `under` is empty and where it may keep what it stores. @returns the program that serves, which may not have mounted yet */
  mount(under: string, mountpoint: string): Promise<ChildProcess>
}

function has(program: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0
}

function call(...words: string[]): Promise<string> {
  return execute(words, START_MS_MAX)
}

/** Starts what stays in the foreground: it can be ended by its number. */
function serve(program: string, ...words: string[]): ChildProcess {
  const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'inherit'], detached: true })
  child.unref()
  return child
}

function moduleDirectory(): string | undefined {
  return process.env['NEXUS_BENCH_MODULES']
}

function hasFuseNative(): boolean {
  const directory = moduleDirectory()
  if (directory === undefined) return false
  try {
    createRequire(path.join(directory, 'x.js')).resolve('fuse-native')
    return true
  } catch {
    return false
  }
}

export const peers: readonly Peer[] = [
  {
    name: 'bindfs',
    from: 'bindfs',
    isInstalled: () => has('bindfs'),
    mount: async (under, mountpoint) => serve('bindfs', '-f', under, mountpoint),
  },
  {
    name: 'gocryptfs',
    from: 'gocryptfs',
    // As anybody else, several processes at once get EPERM for some of the files that they make.
    onlyRoot: true,
    isInstalled: () => has('gocryptfs'),
    mount: async (under, mountpoint) => {
      const [cipher, secret] = [path.join(under, 'cipher'), path.join(under, 'secret')]
      fs.mkdirSync(cipher)
      fs.writeFileSync(secret, 'for a benchmark only\n')
      await call('gocryptfs', '-q', '-init', '-scryptn', '10', '-passfile', secret, cipher)
      return serve('gocryptfs', '-q', '-fg', '-allow_other', '-passfile', secret, cipher, mountpoint)
    },
  },
  {
    name: 's3ql',
    from: 's3ql',
    isInstalled: () => has('mkfs.s3ql'),
    mount: async (under, mountpoint) => {
      const [objects, cache] = [path.join(under, 'objects'), path.join(under, 'cache')]
      fs.mkdirSync(objects)
      await call('mkfs.s3ql', '--plain', '--cachedir', cache, `local://${objects}`)
      return serve('mount.s3ql', '--fg', '--allow-other', '--cachedir', cache, `local://${objects}`, mountpoint)
    },
  },
  {
    name: 'passthrough_ll',
    from: 'libfuse3-dev (its example is built with gcc and pkg-config)',
    onlyRoot: true,
    isInstalled: () => fs.existsSync(PASSTHROUGH_SOURCE) && has('gcc') && has('pkg-config'),
    mount: async (under, mountpoint) => {
      const program = path.join(path.dirname(under), 'passthrough_ll')
      await call('sh', '-c', `gcc -O2 -w -D_GNU_SOURCE -o ${program} ${PASSTHROUGH_SOURCE} $(pkg-config --cflags --libs fuse3)`)
      const options = `source=${under},allow_other,default_permissions,cache=always`
      // It keeps a descriptor of each inode that the kernel knows. Not every root may raise the limit.
      const script = `ulimit -n ${OPEN_FILES_MAX} 2> /dev/null || true; exec "$@"`
      return serve('sh', '-c', script, 'sh', program, '-f', '-o', options, mountpoint)
    },
  },
  {
    name: 'fuse-native',
    from: 'npm install fuse-native in the directory that NEXUS_BENCH_MODULES names, and libfuse2',
    onlyRoot: true,
    isInstalled: hasFuseNative,
    mount: async (under, mountpoint) =>
      serve(process.execPath, FUSE_NATIVE_SERVER, moduleDirectory() as string, under, mountpoint),
  },
]

/** Asks the kernel and not who serves. */
function isMounted(mountpoint: string): boolean {
  return fs.readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${mountpoint} `)
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
}

/** A peer that is mounted below `directory`, which everybody may enter. */
export class PeerMount {
  readonly peer: Peer
  readonly home: string
  readonly #process: ChildProcess

  private constructor(peer: Peer, home: string, process: ChildProcess) {
    this.peer = peer
    this.home = home
    this.#process = process
  }

  static async start(peer: Peer, directory: string): Promise<PeerMount> {
    const at = path.join(directory, peer.name)
    const [under, mountpoint] = [path.join(at, 'under'), path.join(at, 'mnt')]
    for (const one of [at, under, mountpoint]) fs.mkdirSync(one)
    const mount = new PeerMount(peer, mountpoint, await peer.mount(under, mountpoint))
    for (const end = performance.now() + START_MS_MAX; !isMounted(mountpoint); await sleep(20))
      if (hasEnded(mount.#process) || performance.now() > end) {
        await mount.giveUp()
        throw new BenchError(`${peer.name} did not mount`)
      }
    return mount
  }

  /** Unmounts; resolves when who served has ended, who may have something to store still, or after all has been tried. */
  async stop(): Promise<void> {
    if (hasEnded(this.#process) && !isMounted(this.home)) return
    const isUnmounted = await execute(['umount', this.home], STOP_MS_MAX).then(
      () => true,
      () => false,
    )
    if (isUnmounted) {
      this.#kill('SIGTERM')
      await this.#ended(STOP_MS_MAX)
    }
    await this.giveUp()
  }

  /** Ends it, however it stands: once nobody serves a mount any more, all who wait for it are told so. */
  giveUp = async (): Promise<void> => {
    this.#kill('SIGKILL')
    await this.#ended(END_MS_MAX)
    // Forced: it is taken from who serves it, even if that cannot be killed.
    for (const how of ['-f', '-l'])
      if (isMounted(this.home)) await execute(['umount', how, this.home], END_MS_MAX).catch(() => undefined)
  }

  #kill(signal: NodeJS.Signals): void {
    if (!hasEnded(this.#process)) this.#process.kill(signal)
  }

  async #ended(msMax: number): Promise<void> {
    for (const end = performance.now() + msMax; !hasEnded(this.#process) && performance.now() < end; ) await sleep(20)
  }
}
