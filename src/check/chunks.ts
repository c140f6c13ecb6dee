/** Whether every chunk that some state refers to is there: noted while the trees are read, then held against the index. */
import type { Address } from '../cas/address.ts'
import { AddressMap } from '../cas/addressmap.ts'
import type { Location } from '../cas/location.ts'
import type { ContentStore } from '../cas/store.ts'
import type { Pace } from '../pace.ts'
import type { Volumes } from '../volume/volumes.ts'

/** A chunk has at most 128 KiB: 18 bits, and one above for having been found. */
const FOUND = 1 << 24
const END = FOUND - 1

export class WantedChunks {
  /** by domain: how far each chunk is referred to */
  readonly #ends = new Map<number, AddressMap>()

  need(domain: number, address: Address, end: number): void {
    const ends = this.#of(domain)
    const known = ends.get(address)
    if (known === undefined || known < end) ends.set(address, Math.min(end, END))
  }

  /** How far a chunk is referred to; undefined: nobody does. */
  end(domain: number, address: Address): number | undefined {
    const value = this.#ends.get(domain)?.get(address)
    return value === undefined ? undefined : value & END
  }

  get size(): number {
    let size = 0
    for (const ends of this.#ends.values()) size += ends.size
    return size
  }

  found(domain: number, address: Address): void {
    const value = this.#ends.get(domain)?.get(address)
    if (value !== undefined) this.#of(domain).set(address, value | FOUND)
  }

  isFound(domain: number, address: Address): boolean {
    return ((this.#ends.get(domain)?.get(address) ?? FOUND) & FOUND) !== 0
  }

  /** Whether all were found. */
  async complete(pace: Pace): Promise<boolean> {
    let count = 0
    for (const ends of this.#ends.values()) {
      for (const value of ends.values()) {
        if ((value & FOUND) === 0) return false
        if (++count % 1000 === 0) await pace.pause()
      }
    }
    return true
  }

  #of(domain: number): AddressMap {
    let ends = this.#ends.get(domain)
    if (ends === undefined) {
      ends = new AddressMap()
      this.#ends.set(domain, ends)
    }
    return ends
  }
}

/** Goes through the index once, which is far quicker than to ask for each chunk. */
export async function lookForChunks(wanted: WantedChunks, volumes: Volumes, pace: Pace): Promise<void> {
  const segments = volumes.segmentSizes()
  for await (const { domain, address, location } of volumes.content.everything()) {
    const end = domain === undefined ? undefined : wanted.end(domain, address)
    if (domain !== undefined && end !== undefined && isThere(location, end, segments)) wanted.found(domain, address)
    await pace.pause()
  }
}

/** What is wrong with the place of a chunk; undefined: nothing. Asked again, since the collector moves them. */
export function wrongPlace(
  content: ContentStore,
  segments: ReadonlyMap<number, number>,
  { domain, address, end }: { domain: number; address: Address; end: number },
): string | undefined {
  const location = content.locate(domain, address)
  if (location === undefined) return 'is not in the index'
  if (location.length < end) return `has ${location.length} bytes, and ${end} are referred to`
  return isThere(location, end, segments) ? undefined : 'lies outside of the segments that are there'
}

function isThere(location: Location, end: number, segments: ReadonlyMap<number, number>): boolean {
  if (location.length < end) return false
  return location.parts.every((part) => part.offset + part.length <= (segments.get(part.segment) ?? -1))
}
