/** Memory that a process before this one left: anything may be in it. It is gone on with, or refused; never for ever. */
import { closeSync } from 'node:fs'
import fc from 'fast-check'
import t from 'tap'
import { Handover } from '../../src/daemon/handover.ts'
import { NexusError } from '../../src/errors.ts'
import { mapShared, memoryFile } from '../../src/fuse/binding.ts'
import { KnownNodes, SLAB_BYTES } from '../../src/vfs/known.ts'
import { tryAll } from './support.ts'

const WORDS = SLAB_BYTES / 4
const PAGE_WORDS = 100
const extreme = fc.constantFrom(
  0,
  1,
  2,
  63,
  64,
  0x6e786801,
  0x6e786802,
  0x6e786803,
  0x6e786804,
  2 ** 21,
  2 ** 21 + 1,
  2 ** 26 - 1,
  2 ** 26,
  0x7fff_ffff,
  0xffff_ffff,
)
const word = fc.oneof(extreme, fc.nat({ max: 0xffff_ffff }))
/** The count of slots, the note of requests, the headers and counts of the first pages, anything else. */
const at = fc.oneof(fc.constant(1), fc.nat({ max: 48 }), fc.nat({ max: 4 * PAGE_WORDS }), fc.nat({ max: WORDS - 1 }))
const garbage = fc.array(fc.tuple(at, word), { minLength: 1, maxLength: 40 })

/** What is done with it, after a start and later. */
function use(known: KnownNodes): void {
  known.add(3, 7)
  if (!known.has(3, 7)) throw new Error('it does not know what it was told')
  for (const volume of known.volumes()) {
    if (volume < 0 || volume >= 2 ** 21) throw new Error(`there is no volume ${volume}`)
    for (const ino of known.of(volume)) if (ino > 0xffff_ffff) throw new Error(`there is no inode ${ino}`)
    known.buryVolume(volume)
    known.generation(volume, 7)
  }
  known.bury(3, 7)
  known.setWrittenDirectly(3, 7)
  known.setCached(3, 7, true)
  if (!known.isCached(3, 7)) throw new Error('it does not know that there are pages')
  known.remove(3, 7, Number.MAX_SAFE_INTEGER)
  if (known.has(3, 7) || known.isCached(3, 7)) throw new Error('it knows what was given back')
}

t.test('pages of what the kernel holds', async (t) => {
  const slabs = [new Uint8Array(SLAB_BYTES), new Uint8Array(SLAB_BYTES)]
  const check = (changes: [number, number][]): void => {
    for (const slab of slabs) slab.fill(0)
    const words = new Uint32Array((slabs[0] as Uint8Array).buffer)
    for (const [index, value] of changes) words[index] = value
    use(new KnownNodes({ slab: (index) => slabs[index] }))
  }
  const seeds: [number, number][][] = [
    [[1, 0xffff_ffff]],
    [
      [1, 2],
      [PAGE_WORDS, 0xffff_ffff],
      [PAGE_WORDS + 4, 1],
    ],
    [
      [1, 2],
      [PAGE_WORDS, 5],
      [PAGE_WORDS + 1, 0xffff_ffff],
      [PAGE_WORDS + 4, 1],
    ],
  ]
  await tryAll(t, { seeds, inputs: garbage, check, runs: 300 })
})

t.test('the note of requests', async (t) => {
  const fd = memoryFile(2 * SLAB_BYTES)
  t.teardown(() => closeSync(fd))
  const words = new Uint32Array(mapShared(fd))
  const check = (changes: [number, number][]): void => {
    words.fill(0)
    for (const [index, value] of changes) words[index] = value
    let handover: Handover
    try {
      handover = new Handover(fd)
    } catch (error) {
      if (error instanceof NexusError && error.code === 'NEXUS_TOO_NEW') return
      throw error
    }
    handover.logIsRead(7, () => 2 ** 53 - 1)
    handover.begin(1, 2)
    handover.isDone(1, 2)
    handover.isDeadly(1, 2)
    handover.kernelIsFresh()
    void handover.negotiated
    use(new KnownNodes(handover.slabs, handover.generation))
  }
  await tryAll(t, { seeds: [], inputs: garbage, check, runs: 300 })
})

t.test('memory that is too small', async (t) => {
  for (const bytes of [1, 4096, SLAB_BYTES - 1]) {
    const fd = memoryFile(bytes)
    t.throws(() => new Handover(fd), { code: 'NEXUS_TOO_NEW' }, `${bytes} bytes`)
    closeSync(fd)
  }
})
