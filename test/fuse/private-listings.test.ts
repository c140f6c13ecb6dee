/**
 * Listings that differ by caller, under the cache of listings that the kernel has (fs/fuse/readdir.c, as of 6.18): readers
 * take turns in any order between any two steps, stop, seek to any cookie, and pages go by themselves.
 */
import fc from 'fast-check'
import t from 'tap'
import type { Dispatcher } from '../../src/fuse/dispatcher.ts'
import { Opcode, REQUEST_BYTES_MAX } from '../../src/fuse/protocol.ts'
import type { Filesystem } from '../../src/vfs/filesystem.ts'
import { dispatcherOf } from './dispatching.ts'

interface Entry {
  name: string
  cookie: number
  bytes: number
}

/** What the kernel has of one directory; small pages, so that a listing takes several. */
class Cache {
  readonly pages = new Map<number, Map<number, Entry>>()
  isComplete = false
  size = 0
  position = 0
  version = 0
  readonly #pageBytes: number

  constructor(pageBytes: number) {
    this.#pageBytes = pageBytes
  }

  /** fuse_add_dirent_to_cache */
  add(entry: Entry, position: number): void {
    if (this.isComplete || position !== this.position) return
    let index = Math.floor(this.size / this.#pageBytes)
    let offset = this.size % this.#pageBytes
    if (offset + entry.bytes > this.#pageBytes) [index, offset] = [index + 1, 0]
    if (offset === 0) this.pages.set(index, new Map())
    const page = this.pages.get(index)
    if (page === undefined) return
    page.set(offset, entry)
    this.size = index * this.#pageBytes + offset + entry.bytes
    this.position = entry.cookie
  }

  /** fuse_readdir_cache_end */
  end(position: number): void {
    if (this.position === position) this.isComplete = true
  }

  /** fuse_readdir_cached: false when the server has to be asked */
  read(file: OpenDirectory, emit: (entry: Entry) => boolean): boolean {
    if (file.cachePosition !== file.position) file.rewindCache()
    for (;;) {
      if (!this.isComplete) return false
      if (file.version !== this.version) file.rewindCache()
      if (file.cachePosition === 0) file.version = this.version
      const index = Math.floor(file.cacheOffset / this.#pageBytes)
      const isLast = index === Math.floor(this.size / this.#pageBytes)
      const end = isLast ? this.size % this.#pageBytes : this.#pageBytes
      if (file.cacheOffset % this.#pageBytes === end) return true
      const page = this.pages.get(index)
      if (page === undefined) {
        Object.assign(this, { isComplete: false, size: 0, position: 0, version: this.version + 1 })
        continue
      }
      let isFound = false
      for (let entry = page.get(file.cacheOffset % this.#pageBytes); entry !== undefined; ) {
        if (file.cachePosition === file.position) {
          isFound = true
          if (!emit(entry)) return true
          file.position = entry.cookie
        }
        file.cachePosition = entry.cookie
        file.cacheOffset += entry.bytes
        entry = file.cacheOffset % this.#pageBytes === 0 ? undefined : page.get(file.cacheOffset % this.#pageBytes)
      }
      if (isLast) return isFound
      file.cacheOffset = (index + 1) * this.#pageBytes
    }
  }
}

class OpenDirectory {
  position = 0
  cachePosition = 0
  cacheOffset = 0
  version = 0

  rewindCache(): void {
    this.cachePosition = 0
    this.cacheOffset = 0
  }
}

const NODE = 5
const USERS = [1001, 1002, 1003]
/** Each of them sees what is everybody's, and what is his: lists of different lengths. */
const NAMES = USERS.flatMap((uid, index) => Array.from({ length: index + 1 }, (_, number) => `${uid}-${number}`))
const ALL = ['.', '..', 'all', ...NAMES]

function isFor(uid: number, name: string): boolean {
  return !name.includes('-') || name.startsWith(`${uid}-`)
}

/** A server of one directory, whose answers wait until the kernel has dropped its pages. */
class Server {
  readonly #inbox = Buffer.alloc(REQUEST_BYTES_MAX)
  readonly #dispatcher: Dispatcher
  readonly #answers = new Map<number, Buffer>()
  #unique = 0
  readonly drops = new Map<number, () => void>()

  constructor() {
    const fs: Partial<Filesystem> = {
      readdir(caller, _node, cookie, _withStats, sink) {
        for (const [index, name] of ALL.entries()) {
          if (index < cookie || !isFor(caller.uid, name)) continue
          if (!sink(name, 9, 0o040000, index + 1, undefined)) return
        }
      },
    }
    this.#dispatcher = dispatcherOf({
      fs: fs as Filesystem,
      inbox: this.#inbox,
      send: (buffer, length) => {
        this.#answers.set(buffer.readUInt32LE(8), Buffer.from(buffer.subarray(0, length)))
        return 0
      },
      privateListings: {
        has: (node) => node === NODE,
        drop: () => new Promise((resolve) => this.drops.set(this.#unique, resolve)),
      },
    })
  }

  ask(uid: number, position: number, bytesMax: number): number {
    const header = [80, Opcode.READDIR, ++this.#unique, 0, NODE, 0, uid, 0, 0, 0]
    const [low, high] = [position % 2 ** 32, Math.floor(position / 2 ** 32)]
    this.#inbox.set(Buffer.from(Uint32Array.from([...header, 0, 0, low, high, bytesMax, 0, 0, 0, 0, 0]).buffer))
    this.#dispatcher.dispatch(80)
    return this.#unique
  }

  async answer(unique: number): Promise<Entry[]> {
    for (let tries = 0; tries < 20 && !this.#answers.has(unique); tries++) await Promise.resolve()
    const answer = this.#answers.get(unique)
    this.#answers.delete(unique)
    if (answer?.readInt32LE(4) !== 0) throw new Error('no answer')
    const entries: Entry[] = []
    for (let at = 16; at < answer.length; at += entries.at(-1)?.bytes ?? 0) {
      const length = answer.readUInt32LE(at + 16)
      const name = answer.toString('latin1', at + 24, at + 24 + length)
      entries.push({ name, cookie: Number(answer.readBigUInt64LE(at + 8)), bytes: (24 + length + 7) & ~7 })
    }
    return entries
  }
}

interface Story {
  uid: number
  /** entries that fit into the buffer of one getdents(2) */
  room: number
  /** bytes of an answer */
  bytesMax: number
  /** where it begins, among the cookies that were ever seen; undefined: at the start */
  seek: number | undefined
  /** it stops after so many calls */
  calls: number
}

/** One process: opens the directory, lists it, and tells what it must not have seen or has missed. A step a turn. */
async function* reader(server: Server, cache: Cache, cookies: number[], story: Story): AsyncGenerator<void, void> {
  const { uid, room, bytesMax, seek, calls } = story
  const file = new OpenDirectory()
  if (seek !== undefined) file.position = cookies[seek % cookies.length] as number
  const seen: string[] = []
  for (let call = 0; call < calls; call++) {
    let left = room
    const emit = ({ name }: Entry): boolean => left-- > 0 && seen.push(name) > 0
    const before = seen.length
    yield
    if (!cache.read(file, emit)) {
      const unique = server.ask(uid, file.position, bytesMax)
      yield
      const resolve = server.drops.get(unique)
      if (resolve !== undefined) {
        cache.pages.clear()
        yield
        resolve()
      }
      const answer = await server.answer(unique)
      yield
      if (answer.length === 0) cache.end(file.position)
      for (const entry of answer) {
        cookies.push(entry.cookie)
        cache.add(entry, file.position)
        yield
        if (!emit(entry)) break
        file.position = entry.cookie
      }
    }
    const strange = seen.filter((name) => !isFor(uid, name))
    if (strange.length > 0) throw new Error(`${uid} sees ${strange.join()}`)
    if (seen.length > before) continue
    const missed = seek === undefined ? ALL.filter((name) => isFor(uid, name) && !seen.includes(name)) : []
    if (missed.length > 0 || new Set(seen).size !== seen.length) throw new Error(`${uid} lists ${seen.join()}`)
    return
  }
}

const story = fc.record({
  uid: fc.constantFrom(...USERS),
  room: fc.constantFrom(1, 2, 100, 100),
  bytesMax: fc.constantFrom(40, 80, 4096, 4096),
  seek: fc.option(fc.nat({ max: 40 }), { nil: undefined, freq: 2 }),
  calls: fc.constantFrom(1, 2, 50),
})
/** A reader goes on for so many steps; above all readers, the kernel drops a page by itself. */
const burst = fc.tuple(fc.nat({ max: 8 }), fc.constantFrom(1, 2, 3, 5, 10, 30))

const WHOLE = { room: 100, bytesMax: 4096, seek: undefined, calls: 50 }
/**
 * Two ask before the directory was ever listed, from behind its `.` and at its end; when their answers come, page 0 has
 * been made by somebody else. It is complete then, if they knew the cookie.
 */
const GUESSED: [Story[], [number, number][], number] = [
  [{ uid: 1001, ...WHOLE, seek: 5 }, { uid: 1001, ...WHOLE, seek: 0 }, { uid: 1002, ...WHOLE }], // biome-ignore format: a story a line
  [[0, 3], [1, 4], [2, 4], [0, 4], [1, 30], [2, 30]], // biome-ignore format: a turn
  4096,
]

t.test('nobody sees what another was answered, whoever else lists the directory', async (t) => {
  const server = new Server()
  /** what can be guessed, and what was seen of other inodes of the kernel's */
  const cookies = USERS.map((uid) => ALL.findLastIndex((name) => isFor(uid, name)) + 1).concat(1, 2)
  const first = await server.answer(server.ask(USERS[0] as number, 0, 4096))
  cookies.push(...first.map(({ cookie }) => cookie))
  const property = fc.asyncProperty(
    fc.array(story, { minLength: 3, maxLength: 6 }),
    fc.array(burst, { maxLength: 40 }),
    fc.constantFrom(64, 128, 4096),
    async (stories, bursts, pageBytes) => {
      const cache = new Cache(pageBytes)
      const known = [...cookies]
      const readers = stories.map((one) => reader(server, cache, known, one))
      for (const [who, steps] of bursts) {
        if (who === readers.length) cache.pages.delete(steps % 3)
        for (let step = 0; step < steps; step++) await readers[who]?.next()
      }
      // One after the other to the end, and once more when all is quiet.
      for (const one of readers) while (!(await one.next()).done);
      for (const uid of USERS) {
        const last = reader(server, cache, known, { uid, room: 100, bytesMax: 4096, seek: undefined, calls: 50 })
        while (!(await last.next()).done);
      }
    },
  )
  await fc.assert(property, { numRuns: 3000, examples: [GUESSED] })
  t.pass()
})
