/** Where workloads run: the local disk, nexus as its owner and as somebody to whom it was granted, and the peers. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Service } from '../src/api/calls.ts'
import { connectControl } from '../src/client/client.ts'
import { socketPathOf } from '../src/host/location.ts'
import { TestMount } from '../test/mount/harness.ts'
import type { PeerMount } from './peers.ts'
import { execute, HungError } from './shell.ts'
import { BenchError, type Place, type Store } from './workload.ts'

export const WORKSPACE = '/workspace/bench'
/** Nobody's; as root the measured processes are not root, who passes all checks. */
const OWNER_UID = 60_001
const GRANTED_UID = 60_002
const SETTLE_MS_MAX = 120_000
/** for one call to a peer, when nothing else is asked of it */
const ANSWER_MS_MAX = 20_000

const isRoot = process.getuid?.() === 0
const ownUid = process.getuid?.() ?? 0

/** Everything on the disk that holds a directory. */
function sync(directory: string): void {
  execFileSync('sync', ['-f', directory])
}

/** Names, attributes and pages of the whole machine; what is not stored stays. */
export function dropKernelCaches(): void {
  fs.writeFileSync('/proc/sys/vm/drop_caches', '3')
}

/** Why caches cannot be dropped here, or undefined. */
export function noDropping(): string | undefined {
  return isRoot ? undefined : 'only root can drop what the kernel caches'
}

/**
 * For minutes ext4 does not use the numbers of deleted files again and looks long for others in the same block group:
 * a round would suffer from what an earlier one deleted. With this, subdirectories go to groups of their own.
 */
function spreadOut(directory: string): void {
  spawnSync('chattr', ['+T', directory])
}

/** @returns bytes that a process had written to the disk; what it has written and nobody has synced counts too */
function writtenBy(pid: number): number {
  const text = fs.readFileSync(`/proc/${pid}/io`, 'utf8')
  return Number(/^write_bytes: (\d+)$/m.exec(text)?.[1] ?? Number.NaN)
}

export function localPlace(directory: string): Place {
  const home = path.join(directory, 'local')
  const uid = isRoot ? OWNER_UID : ownUid
  fs.mkdirSync(home)
  if (isRoot) fs.chownSync(home, uid, uid)
  spreadOut(home)
  const type = execFileSync('stat', ['-f', '-c', '%T', home], { encoding: 'utf8' }).trim()
  const settle = async (): Promise<void> => sync(home)
  return { name: type.replace('ext2/ext3', 'ext4'), kind: 'local', home, owner: uid, uid, settle, restart: settle }
}

/** A peer that is mounted; everything of it lies on the same disk. */
export async function peerPlace({ peer, home, giveUp }: PeerMount): Promise<Place> {
  const uid = isRoot && peer.onlyRoot !== true ? OWNER_UID : ownUid
  if (isRoot) await execute(['chown', `${uid}:${uid}`, home], ANSWER_MS_MAX)
  const settle = async (): Promise<void> => {
    await execute(['sync', '-f', home], SETTLE_MS_MAX)
    sync(path.dirname(home))
  }
  // statfs(2) is what no kernel answers by itself.
  const probe = async (): Promise<void> => {
    await execute(['stat', '-f', home], ANSWER_MS_MAX).catch((error: unknown) => {
      throw new HungError(`${peer.name} does not answer`, { cause: error })
    })
  }
  return { name: peer.name, kind: 'peer', home, owner: uid, uid, settle, restart: settle, probe, giveUp }
}

/** A mount of nexus, and the places in it. */
export class NexusMount {
  readonly #mount: TestMount
  readonly #service: Service

  private constructor(mount: TestMount) {
    this.#mount = mount
    this.#service = connectControl({ socketPath: socketPathOf(mount.data) })
  }

  /** @param directory may be entered by everybody; what is mounted is in it, and what is stored */
  static async start(directory: string): Promise<NexusMount> {
    const mount = new TestMount(directory, {})
    const nexus = new NexusMount(mount)
    try {
      await nexus.#start()
      if (isRoot) {
        await nexus.#service.identityAdd('user:bench-owner', OWNER_UID)
        await nexus.#service.identityAdd('user:bench-granted', GRANTED_UID)
        await nexus.#service.workspaceCreate(WORKSPACE, { owner: 'user:bench-owner' })
        await nexus.#service.grant('user:bench-granted', 'editor', WORKSPACE, {})
      } else await nexus.#service.workspaceCreate(WORKSPACE, {})
    } catch (error) {
      await nexus.stop()
      throw error
    }
    return nexus
  }

  /** As the workspace's owner; and, if there can be several users, as an editor. */
  places(): Place[] {
    const owner = isRoot ? OWNER_UID : ownUid
    const both: Place[] = [this.#place('nexus', owner, owner)]
    if (isRoot) both.push(this.#place('nexus, granted', owner, GRANTED_UID))
    return both
  }

  #place(name: string, owner: number, uid: number): Place {
    return {
      ...{ name, kind: 'nexus', home: this.#mount.at(WORKSPACE), owner, uid },
      settle: () => this.#settle(),
      restart: () => this.#restart(),
      requests: async () => (await this.#service.status()).requests,
      store: this.#store(),
    }
  }

  #store(): Store {
    return {
      service: this.#service,
      storedBytes: async () => {
        await this.#settle()
        // A daemon that has measured it keeps that for a minute; one that has just begun has not.
        await this.#restart()
        const { live_bytes, snapshot_bytes } = await this.#service.diskUsage(null)
        return live_bytes + snapshot_bytes
      },
      writtenBytes: async () => {
        const { pid, supervisor_pid } = await this.#service.status()
        return [...new Set([pid, supervisor_pid])].reduce((sum, one) => sum + writtenBy(one), 0)
      },
    }
  }

  async #settle(): Promise<void> {
    await this.#service.checkpoint()
    sync(this.#mount.data)
    // What was deleted before is given back by itself, a moment later.
    for (const end = performance.now() + SETTLE_MS_MAX; (await this.#service.collectStatus()).phase !== 'idle'; ) {
      if (performance.now() > end) throw new BenchError('a collection does not come to its end')
      await sleep(20)
    }
  }

  async #restart(): Promise<void> {
    await this.#mount.stop()
    await this.#start()
  }

  /** A kernel that has not opened anything yet does not know that nobody wants to hear of it, and tells of each close. */
  async #start(): Promise<void> {
    await this.#mount.start()
    const file = this.#mount.at('workspace', '.opened')
    fs.writeFileSync(file, '')
    fs.readFileSync(file)
    fs.rmSync(file)
  }

  /** Unmounts, however it stands. */
  async stop(): Promise<void> {
    await this.#mount.stop()
    await this.#mount.dispose()
  }
}
