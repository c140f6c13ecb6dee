/** Makes the changes of volumes part of their trees, between the requests that are being served. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Sealer } from '../cas/sealer.ts'
import type { ContentStore } from '../cas/store.ts'
import { Histogram } from '../histogram.ts'
import type { Logger } from '../logger.ts'
import { giveWay, SLICE_MS } from '../pace.ts'
import { type MergeTools, mergeFrozen } from './merge.ts'
import { type MergedState, stateOf, type VolumeTable } from './table.ts'
import type { Volume } from './volume.ts'

/** A merge returns to the event loop after this long when changes come faster than merges. */
const SLICE_MS_OVERLOADED = 25

export interface MergerOptions {
  table: VolumeTable
  store: ContentStore
  sealer: Sealer
  /** seals in the thread that asks, for who must not return to the event loop */
  sealerHere: Sealer
  logger: Logger
  /** with more changes than this in all layers, requests no longer come first */
  weightMax: number
}

export class Merger {
  /** how long they took that ended well */
  readonly times = new Histogram()
  readonly #options: MergerOptions
  #sliceStart = 0

  constructor(options: MergerOptions) {
    this.#options = options
  }

  /**
   * Freezes volumes at once and merges one after the other; one at a time, and in turn with checkpoints.
   * @param atOnce without ever returning to the event loop
   * @returns the states as of the call; a volume that was reset meanwhile has none
   */
  async merge(numbers: readonly number[], atOnce = false): Promise<Map<number, MergedState>> {
    const { table } = this.#options
    const states = new Map<number, MergedState>()
    const frozen: { volume: Volume; epoch: number }[] = []
    for (const number of numbers) {
      const volume = table.get(number)
      if (volume === undefined) continue
      if (volume.active.empty) {
        states.set(number, stateOf(volume))
      } else {
        table.weight -= volume.freeze().weight
        frozen.push({ volume, epoch: volume.epoch })
      }
    }
    const start = performance.now()
    this.#sliceStart = start
    try {
      for (const { volume, epoch } of frozen) {
        const layer = volume.frozen
        // Reset in the meantime: what was frozen is nobody's any more.
        if (layer === null || volume.epoch !== epoch) continue
        const counters = volume.frozenSuper
        const root = await mergeFrozen(volume, layer, this.#tools(atOnce))
        if (volume.epoch !== epoch) continue
        volume.thaw(root)
        states.set(volume.number, { root, domain: volume.domain, super: counters })
        // Of ten thousand workspaces that changed a little, none has a slice's worth of work.
        const wait = atOnce ? undefined : this.#pause()
        if (wait !== undefined) await wait
      }
      if (frozen.length > 0) this.times.addSince(start)
    } finally {
      for (const { volume, epoch } of frozen) {
        if (volume.epoch !== epoch || volume.frozen === null) continue
        // A volume that was removed counts no more.
        if (table.get(volume.number) === volume) table.weight += volume.frozen.weight
        volume.unfreeze()
      }
    }
    return states
  }

  #tools(atOnce: boolean): MergeTools {
    const { store, sealer, sealerHere, logger } = this.#options
    return {
      store,
      sealer: atOnce ? sealerHere : sealer,
      pause: () => (atOnce ? undefined : this.#pause()),
      onDamage: (volume, ino, damage) =>
        logger.error(
          { volume, ino, ...damage },
          `segment ${damage.segment} is damaged at byte ${damage.offset}: ${damage.length} bytes of a file are lost, reading them fails with EIO`,
        ),
    }
  }

  #pause(): Promise<void> | undefined {
    const overloaded = this.#options.table.weight > this.#options.weightMax
    if (performance.now() - this.#sliceStart < (overloaded ? SLICE_MS_OVERLOADED : SLICE_MS)) return undefined
    return (overloaded ? nextTurn() : giveWay()).then(() => {
      this.#sliceStart = performance.now()
    })
  }
}
