/** A dispatcher without a connection: what it sends and what it logs goes to who tests it. */
import { RequestClock } from '../../src/fuse/clock.ts'
import { Dispatcher, type DispatcherOptions } from '../../src/fuse/dispatcher.ts'

type Given = 'fs' | 'inbox' | 'send'

/** It waits for no grace, has no terms yet and lists alike for everybody, if not told otherwise. */
export function dispatcherOf(options: Pick<DispatcherOptions, Given> & Partial<DispatcherOptions>): Dispatcher {
  return new Dispatcher({
    clock: new RequestClock(),
    logger: { error() {}, warn() {}, info() {}, debug() {} } as never,
    terms: undefined,
    privateListings: undefined,
    interruptGraceMs: 0,
    requestLimitMs: 60_000,
    mark: undefined,
    direct: undefined,
    onAccept: () => {},
    onRefuse: () => {},
    onLateAnswer: () => {},
    ...options,
  })
}
