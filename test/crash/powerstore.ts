/** A small store, everything that can be done to it in one way each, and all that can be seen of it as text. */

import type { Index } from '../../src/cas/index.ts'
import { Engine } from '../../src/engine/engine.ts'
import { FS, FsError, type NexusError } from '../../src/errors.ts'
import type { Disk } from '../../src/journal/disk.ts'
import { silentLogger } from '../../src/logger.ts'
import { KnownNodes, SLAB_BYTES } from '../../src/vfs/known.ts'
import { nodeOf } from '../../src/vfs/place.ts'
import { ROOT_INO } from '../../src/volume/keys.ts'
import { MemoryIndex, noise } from '../cas/support.ts'
import { ALWAYS_ZEROS, MemoryDisk } from '../journal/support.ts'
import { caller, TestEngine } from '../snapshots/support.ts'
import { type Image, imageOf } from './powerdisk.ts'

const W = '/workspace/w'
const S_IFMT = 0o170000
const S_IFDIR = 0o040000
const S_IFREG = 0o100000
const S_IFLNK = 0o120000
const EXCHANGE = 2
/** Of `Engine.collect`: some segments of the small store are always worth it. */
const SEGMENT_BYTES = 1600

let seconds = 1_000_000
/** One for all: of the stores that are opened only the last is at work. */
const slab = new Uint8Array(SLAB_BYTES)

export async function openStore(data: string, disk: Disk, index: Index): Promise<TestEngine> {
  const engine = await Engine.open({
    data,
    disk,
    index,
    logger: silentLogger,
    limits: {
      segmentBytesMax: SEGMENT_BYTES,
      zeros: ALWAYS_ZEROS,
      nodeCacheBytesMax: 20_000,
      chunkCacheBytesMax: 1,
      sealWorkers: 0,
    },
    owner: caller,
    singleUser: true,
    known: new KnownNodes({ slab: (index) => (index === 0 ? slab.fill(0) : undefined) }),
    now: () => ({ s: seconds, ns: 7 }),
  })
  return new TestEngine(engine)
}

/** Two workspaces, a few names, a snapshot, a grant, and garbage in the log; some of it is not in the index yet. */
export async function makeImage(data: string): Promise<Image> {
  const [disk, index] = [new MemoryDisk(), new MemoryIndex()]
  const test = await openStore(data, disk, index)
  const { service } = test
  for (const name of [W, '/workspace/v', `${W}/d`, `${W}/e`]) test.mkdir(name)
  test.write(`${W}/a`, noise(300, 1))
  test.write(`${W}/d/b`, noise(200, 2))
  test.write('/workspace/v/x', noise(700, 3))
  await service.grant('user:bob', 'editor', W, {})
  await service.snapshotCreate(W, { name: 's' })
  test.write(`${W}/a`, noise(900, 4))
  test.write(`${W}/c`, noise(1200, 5))
  test.unlink(`${W}/c`)
  await service.checkpoint()
  test.write(`${W}/a`, noise(100, 6), 50)
  await test.engine.volumes.sync()
  return imageOf(disk, index)
}

export type Step = (test: TestEngine) => unknown

/** Each once, on names that others use as well. */
export const OPERATIONS: Record<string, Step> = {
  create: (test) => test.engine.fs.create(caller, at(test, W), 'n', 0o640, 0, 0o200),
  write: (test) => write(test, `${W}/a`, 10, noise(40, 11)),
  append: (test) => write(test, `${W}/a`, 'end', noise(600, 12)),
  truncate: (test) => test.engine.fs.setattr(caller, at(test, `${W}/a`), { size: 33 }),
  fallocate: (test) => test.engine.fs.fallocate(caller, at(test, `${W}/a`), 0, 1000, 3000),
  link: (test) => test.engine.fs.link(caller, at(test, `${W}/a`), at(test, `${W}/d`), 'l'),
  unlink: (test) => test.unlink(`${W}/a`),
  'rename over': (test) => test.engine.fs.rename(caller, at(test, W), 'a', at(test, `${W}/d`), 'b', 0),
  'rename exchange': (test) => test.engine.fs.rename(caller, at(test, W), 'a', at(test, `${W}/d`), 'b', EXCHANGE),
  mkdir: (test) => test.mkdir(`${W}/m`),
  rmdir: (test) => test.engine.fs.rmdir(caller, at(test, W), 'e'),
  symlink: (test) => test.engine.fs.symlink(caller, at(test, W), 'y', Buffer.from('d/b')),
  setxattr: (test) => test.engine.fs.setxattr(caller, at(test, `${W}/a`), 'user.k', noise(20, 13), 0, false),
  copy: (test) => test.engine.fs.copyFileRange(caller, at(test, `${W}/a`), 20, at(test, `${W}/d/b`), 100, 200),
  snapshot: ({ service }) => service.snapshotCreate(W, { name: 'later' }),
  restore: ({ service }) => service.restore(W, 's', {}),
  fork: ({ service }) => service.fork(W, '/workspace/f', {}),
  'delete workspace': ({ service }) => service.workspaceDelete('/workspace/v'),
  grant: ({ service }) => service.grant('user:amy', 'viewer', W, {}),
  revoke: ({ service }) => service.revoke('user:bob', 'editor', W),
  checkpoint: ({ service }) => service.checkpoint(),
  collect: ({ service }) => service.collect(),
}

export const SYNCS: Record<string, Step> = {
  fsync: (test) => test.engine.fs.fsync(),
  fsyncdir: (test) => test.engine.fs.fsync(),
  syncfs: (test) => test.engine.volumes.sync(),
}

/** A refusal counts as done: the second unlink of a name is ENOENT, and changes nothing. */
export async function perform(test: TestEngine, step: Step): Promise<void> {
  seconds++
  try {
    await step(test)
  } catch (error) {
    const isRefusal = error instanceof FsError ? error.code !== 'EIO' : REFUSALS.has((error as NexusError).code)
    if (!isRefusal) throw error
  }
}

const REFUSALS: ReadonlySet<string> = new Set(['NEXUS_NOT_FOUND', 'NEXUS_EXISTS', 'NEXUS_USAGE'])

/** To a file that is there: `TestEngine.write` would make it, and be two operations. */
function write(test: TestEngine, file: string, offset: number | 'end', bytes: Buffer): void {
  at(test, file)
  test.write(file, bytes, offset === 'end' ? test.stat(file).size : offset)
}

function at(test: TestEngine, file: string): number {
  try {
    return test.stat(file).node
  } catch {
    // Removed or renamed by the step before: the call answers what it answers for a name that is not there.
    throw FS.ENOENT
  }
}

/** Everything that can be seen: every inode that has a name, live and in snapshots, the counters, and the catalog. */
export function dump(test: TestEngine): string {
  const { fs, volumes, registry } = test.engine
  const lines = [...volumes.catalog.all()].filter(([key]) => !key.startsWith('c/')).map((entry) => entry.join('='))
  for (const number of volumes.numbers().sort((a, b) => a - b)) {
    const { files, directories, bytes } = volumes.get(number)?.super ?? { files: 0, directories: 0, bytes: 0 }
    lines.push(`volume ${number}: ${files} ${directories} ${bytes}`)
  }
  lines.sort()
  const visit = (node: number, path: string): void => {
    const { generation: _, ...stat } = fs.getattr(caller, node)
    const xattrs = fs.listxattr(caller, node).map((name) => `${name}=${hex(fs.getxattr(caller, node, name))}`)
    lines.push(`${path} ${JSON.stringify(stat)} ${xattrs.sort()} ${contentOf(test, node, stat.mode, stat.size)}`)
    if ((stat.mode & S_IFMT) !== S_IFDIR) return
    const entries: [string, number][] = []
    fs.readdir(caller, node, 0, false, (name, child) => entries.push([name, child]) > 0)
    for (const [name, child] of entries.sort()) if (name !== '.' && name !== '..') visit(child, `${path}/${name}`)
  }
  visit(nodeOf(0, ROOT_INO), '')
  for (const { id, view } of registry.snapshots()) visit(nodeOf(view, ROOT_INO), `snapshot ${id}`)
  return lines.join('\n')
}

function contentOf({ engine: { fs } }: TestEngine, node: number, mode: number, size: number): string {
  if ((mode & S_IFMT) === S_IFLNK) return hex(fs.readlink(caller, node))
  if ((mode & S_IFMT) !== S_IFREG) return ''
  const into = Buffer.alloc(size)
  fs.read(caller, node, 0, size, into, 0)
  return hex(into)
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}

/** Throws when what is stored contradicts itself, or the index leads to what is not there. */
export async function checkStore({ engine }: TestEngine): Promise<void> {
  const { content } = engine.volumes
  for await (const { domain, address } of content.everything()) {
    if (content.inspect(domain, address) === 0)
      throw new Error(`the index names ${hex(Buffer.from(address, 'latin1'))}, which is not there`)
  }
  const { total, findings } = await engine.check()
  if (total > 0) throw new Error(`fsck finds ${JSON.stringify(findings)}`)
}
