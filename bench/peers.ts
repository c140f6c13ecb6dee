/** Other filesystems of the same kind, mounted over directories on the same disk. Who is not installed does not take part. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { gone } from '../test/mount/harness.ts'
import { BenchError } from './workload.ts'

const START_MS_MAX = 20_000
/** Where Debian's libfuse3-dev puts it. */
const PASSTHROUGH_SOURCE = '/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c'
const FUSE_NATIVE_SERVER = fileURLToPath(new URL('./peers/fuse-native.js', import.meta.url))

export interface Peer {
  readonly name: string
  /** what to install where it is missing */
  readonly from: string
  isInstalled(): boolean
  /** it makes files as who serves, whoever asked: only root can be measured there */
  readonly onlyRoot?: true
  /** Mounts; `under` is empty and where it may keep what it stores. @returns the program, where it stays in the foreground */
  mount(under: string, mountpoint: string): number | undefined
}

function has(program: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0
}

function call(program: string, ...words: string[]): void {
  execFileSync(program, words, { stdio: ['ignore', 'ignore', 'pipe'] })
}

/** @returns its process */
function serve(program: string, ...words: string[]): number {
  const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'inherit'], detached: true })
  child.unref()
  return child.pid ?? 0
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
    mount: (under, mountpoint) => void call('bindfs', under, mountpoint),
  },
  {
    name: 'gocryptfs',
    from: 'gocryptfs',
    isInstalled: () => has('gocryptfs'),
    mount: (under, mountpoint) => {
      const [cipher, secret] = [path.join(under, 'cipher'), path.join(under, 'secret')]
      fs.mkdirSync(cipher)
      fs.writeFileSync(secret, 'for a benchmark only\n')
      call('gocryptfs', '-q', '-init', '-scryptn', '10', '-passfile', secret, cipher)
      call('gocryptfs', '-q', '-allow_other', '-passfile', secret, cipher, mountpoint)
    },
  },
  {
    name: 's3ql',
    from: 's3ql',
    isInstalled: () => has('mkfs.s3ql'),
    mount: (under, mountpoint) => {
      const [objects, cache] = [path.join(under, 'objects'), path.join(under, 'cache')]
      fs.mkdirSync(objects)
      call('mkfs.s3ql', '--plain', '--cachedir', cache, `local://${objects}`)
      call('mount.s3ql', '--allow-other', '--cachedir', cache, `local://${objects}`, mountpoint)
    },
  },
  {
    name: 'passthrough_ll',
    from: 'libfuse3-dev (its example is built with gcc and pkg-config)',
    onlyRoot: true,
    isInstalled: () => fs.existsSync(PASSTHROUGH_SOURCE) && has('gcc') && has('pkg-config'),
    mount: (under, mountpoint) => {
      const program = path.join(path.dirname(under), 'passthrough_ll')
      call('sh', '-c', `gcc -O2 -w -D_GNU_SOURCE -o ${program} ${PASSTHROUGH_SOURCE} $(pkg-config --cflags --libs fuse3)`)
      return serve(program, '-f', '-o', `source=${under},allow_other,default_permissions,cache=always`, mountpoint)
    },
  },
  {
    name: 'fuse-native',
    from: 'npm install fuse-native in the directory that NEXUS_BENCH_MODULES names, and libfuse2',
    onlyRoot: true,
    isInstalled: hasFuseNative,
    mount: (under, mountpoint) => serve(process.execPath, FUSE_NATIVE_SERVER, moduleDirectory() as string, under, mountpoint),
  },
]

/** A peer that is mounted below `directory`, which everybody may enter. */
export class PeerMount {
  readonly home: string
  readonly #pid: number | undefined

  private constructor(home: string, pid: number | undefined) {
    this.home = home
    this.#pid = pid
  }

  static async start(peer: Peer, directory: string): Promise<PeerMount> {
    const at = path.join(directory, peer.name)
    const [under, mountpoint] = [path.join(at, 'under'), path.join(at, 'mnt')]
    for (const one of [at, under, mountpoint]) fs.mkdirSync(one)
    const device = fs.statSync(mountpoint).dev
    let mount = new PeerMount(mountpoint, undefined)
    try {
      mount = new PeerMount(mountpoint, peer.mount(under, mountpoint))
      for (let waited = 0; fs.statSync(mountpoint).dev === device; waited += 20) {
        if (waited > START_MS_MAX) throw new BenchError(`${peer.name} did not mount in time`)
        await sleep(20)
      }
      return mount
    } catch (error) {
      await mount.stop()
      throw error
    }
  }

  /** Unmounts, however it stands; resolves when who served has ended, who may have something to store still. */
  async stop(): Promise<void> {
    if (spawnSync('umount', [this.home]).status !== 0) spawnSync('umount', ['-l', this.home])
    if (this.#pid === undefined) return
    try {
      process.kill(this.#pid)
    } catch {
      // It has ended with its mount, as it should.
    }
    await gone(this.#pid)
  }
}
