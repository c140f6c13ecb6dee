/**
 * From the bytes of a request to the bytes of its answer. All that is common to the operations is
 * done here once: finding the opcode, checking the frame, turning exceptions into errnos, counting,
 * logging. It knows no descriptor: answers go to a function.
 */
import { integersOf } from '../bytes.ts'
import { FS } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Filesystem } from '../vfs/filesystem.ts'
import type { RequestClock } from './clock.ts'
import { Failures } from './failures.ts'
import { canWriteDirectly, type Negotiated } from './init.ts'
import { type RequestMetrics, Stalls } from './meter.ts'
import type { Connection, DirectFiles, Encode, Probe, RequestMark, WaitsFor } from './operation.ts'
import { Pending, type Waiting } from './pending.ts'
import type { PrivateListings } from './private-listings.ts'
import { Opcode, OUT_HEADER_BYTES } from './protocol.ts'
import { Reply, writeOutHeader } from './reply.ts'
import { Request } from './request.ts'
import { type Dispatched, operationTable } from './requests.ts'
import type { WriteBacks } from './write-back.ts'

/** FUSE_UNIQUE_RESEND (fs/fuse/fuse_i.h): set in `unique` when a request is sent again. In its upper half. */
const RESENT = 0x8000_0000

/** Errnos that only say that nobody waits for the answer any more: ENOENT, ENODEV (Linux, asm-generic/errno-base.h). */
const NOBODY_WAITS: readonly number[] = [-2, -19]

/** What to do about a request that waited too long. */
const ADVICE: Record<WaitsFor, string> = {
  disk: 'look at the disk of the data',
  pages: 'another program may hold a page of that file',
  listing: 'another program may hold a page of that directory',
  admission: 'another program may hold that directory',
}

/** What becomes EIO, with a line in the log that names the operation. */
class DeadlyRequest extends Error {
  constructor() {
    super('several processes died over this request: it is refused')
  }
}

export interface DispatcherOptions {
  fs: Filesystem
  /** where requests are read to */
  inbox: Buffer
  /** takes a whole answer; microseconds since the request was read, or a negative errno */
  send: (buffer: Buffer, length: number) => number
  clock: RequestClock
  logger: Logger
  /** what INIT of an earlier process agreed on, when its mount is taken over */
  terms: Negotiated | undefined
  privateListings: PrivateListings | undefined
  interruptGraceMs: number
  /** how long a request may wait for its answer */
  requestLimitMs: number
  mark: RequestMark | undefined
  direct: DirectFiles | undefined
  onAccept: (terms: Negotiated) => void
  onRefuse: (error: Error) => void
  /** an answer that had to wait was sent: its caller goes on, and will soon ask again */
  onLateAnswer: () => void
  writeBacks?: WriteBacks
}

export class Dispatcher implements Connection {
  readonly fs: Filesystem
  readonly privateListings: PrivateListings | undefined
  readonly #options: DispatcherOptions
  readonly #stalls = new Stalls()
  readonly #table = operationTable(this.#stalls)
  readonly #counts = new Float64Array(this.#table.length)
  readonly #request: Request
  readonly #reply = new Reply()
  /** Answers without payload; apart, because the reply's buffer may hold half an answer when one fails. */
  readonly #header = Buffer.alloc(OUT_HEADER_BYTES)
  readonly #headerIntegers = integersOf(this.#header)
  readonly #failures: Failures
  readonly #pending: Pending
  direct: DirectFiles | undefined
  probe: Probe | undefined
  #terms: Negotiated | undefined
  #unknown = 0
  #timeouts = 0
  #readBytes = 0
  #writtenBytes = 0

  constructor(options: DispatcherOptions) {
    this.#options = options
    this.fs = options.fs
    this.privateListings = options.privateListings
    this.#request = new Request(options.inbox)
    if (options.terms !== undefined) this.#agree(options.terms)
    this.#failures = new Failures(options.logger)
    this.#pending = new Pending({
      failures: this.#failures,
      interruptGraceMs: options.interruptGraceMs,
      limitMs: options.requestLimitMs,
      onLimit: (waiting) => this.#noteLimit(waiting),
      answer: (waiting, error) => this.#answerLate(waiting, error),
      answerWith: (waiting, encode) => this.#answerLateWith(waiting, encode),
    })
  }

  get negotiated(): Negotiated | undefined {
    return this.#terms
  }

  /** Requests that wait for an asynchronous answer. */
  get waiting(): number {
    return this.#pending.size
  }

  /** How many requests of each kind there were, by name. */
  get counts(): Record<string, number> {
    const counts: Record<string, number> = {}
    for (const [opcode, count] of this.#counts.entries()) {
      if (count > 0) counts[this.#table[opcode]?.name ?? opcode] = count
    }
    return this.#unknown > 0 ? { ...counts, UNKNOWN: this.#unknown } : counts
  }

  get metrics(): RequestMetrics {
    const operations: RequestMetrics['operations'] = []
    for (const [opcode, count] of this.#counts.entries()) {
      const operation = count > 0 ? this.#table[opcode] : undefined
      if (operation === undefined) continue
      const { name, meter } = operation
      operations.push({ name, count, errors: meter.errors, latency: meter.latency })
    }
    const [readBytes, writtenBytes] = [this.#readBytes, this.#writtenBytes]
    const [timeouts, stallCount, stalls] = [this.#timeouts, this.#stalls.count, this.#stalls.worst]
    return { operations, readBytes, writtenBytes, timeouts, stallCount, stalls }
  }

  /** Serves the request of `bytes` bytes that lies in the inbox. Never throws. */
  dispatch(bytes: number): void {
    const request = this.#request
    if (!request.begin(bytes)) {
      this.#options.logger.warn({ bytes }, 'fuse: dropped a request that is shorter than its header')
      return
    }
    const operation = this.#table[request.opcode]
    this.#count(request.opcode)
    this.#options.clock.begin()
    try {
      this.#run(operation, bytes)
    } catch (error) {
      this.#fail(operation, error)
    } finally {
      this.#options.clock.end()
    }
  }

  #count(opcode: number): void {
    const count = this.#counts[opcode]
    if (count === undefined || this.#table[opcode] === undefined) this.#unknown++
    else this.#counts[opcode] = count + 1
  }

  #run(operation: Dispatched | undefined, bytes: number): void {
    const request = this.#request
    if (operation === undefined) throw FS.ENOSYS
    request.open(bytes, operation.bodyBytes)
    // Taken now: WRITE lets its callee overwrite the request's header.
    const { uniqueLow, uniqueHigh, node } = request
    const answer = this.#isDone(uniqueLow, uniqueHigh)
      ? (operation.again ?? operation.run)(this, request, this.#reply)
      : operation.run(this, request, this.#reply)
    if (typeof answer !== 'number') {
      const { waitsFor } = answer
      this.#pending.add({ name: operation.name, node, uniqueLow, uniqueHigh, waitsFor, since: performance.now() }, answer.answer)
    } else if (answer >= 0) {
      const length = OUT_HEADER_BYTES + answer
      this.#reply.header(length, uniqueLow, uniqueHigh)
      const micros = this.#send(operation.name, this.#reply.buffer, length)
      operation.meter.answered(micros)
      this.#countBytes(operation, answer)
    }
  }

  #countBytes(operation: Dispatched | undefined, payloadBytes: number): void {
    if (operation === this.#table[Opcode.READ]) this.#readBytes += payloadBytes
    else if (operation === this.#table[Opcode.WRITE]) this.#writtenBytes += this.#reply.buffer.readUInt32LE(OUT_HEADER_BYTES)
  }

  /** Notes the request; true when it was served before, but for the answer. @throws EIO when it would kill this process too */
  #isDone(uniqueLow: number, uniqueHigh: number): boolean {
    const { mark } = this.#options
    if (mark === undefined) return false
    const high = (uniqueHigh & ~RESENT) >>> 0
    const isResent = high !== uniqueHigh
    if (isResent && mark.isDeadly(uniqueLow, high)) throw new DeadlyRequest()
    const isDone = isResent && mark.isDone(uniqueLow, high)
    mark.begin(uniqueLow, high)
    return isDone
  }

  #fail(operation: Dispatched | undefined, error: unknown): void {
    const { uniqueLow, uniqueHigh, node, opcode } = this.#request
    const op = operation?.name ?? `opcode ${opcode}`
    const unique = (): string => `0x${((BigInt(uniqueHigh) << 32n) | BigInt(uniqueLow)).toString(16)}`
    const fsError = this.#failures.report(() => ({ op, unique: unique(), node }), error)
    operation?.meter.failed(fsError.errno)
    if (operation?.silent) return
    const micros = this.#sendHeader(op, -fsError.errno, uniqueLow, uniqueHigh)
    operation?.meter.answered(micros)
  }

  #noteLimit({ name, node, waitsFor, since }: Waiting): void {
    this.#timeouts++
    const waited_s = Math.round((performance.now() - since) / 100) / 10
    this.#options.logger.error(
      { op: name, node, waits_for: waitsFor, waited_s },
      `fuse: a request has waited too long and is answered with EIO, though what it waits for may still happen: ${ADVICE[waitsFor]}`,
    )
  }

  #answerLate(waiting: Waiting, error: number): void {
    const meter = this.#table[Opcode[waiting.name]]?.meter
    if (error !== 0) meter?.failed(-error)
    this.#sendHeader(waiting.name, error, waiting.uniqueLow, waiting.uniqueHigh)
    meter?.answered((performance.now() - waiting.since) * 1000, true)
    this.#options.onLateAnswer()
  }

  #answerLateWith({ name, since, uniqueLow, uniqueHigh }: Waiting, encode: Encode): void {
    const length = OUT_HEADER_BYTES + encode(this.#reply)
    this.#reply.header(length, uniqueLow, uniqueHigh)
    this.#send(name, this.#reply.buffer, length)
    const operation = this.#table[Opcode[name]]
    operation?.meter.answered((performance.now() - since) * 1000, true)
    this.#countBytes(operation, length - OUT_HEADER_BYTES)
    this.#options.onLateAnswer()
  }

  #sendHeader(op: string, error: number, uniqueLow: number, uniqueHigh: number): number {
    writeOutHeader(this.#headerIntegers, OUT_HEADER_BYTES, error, uniqueLow, uniqueHigh)
    return this.#send(op, this.#header, OUT_HEADER_BYTES)
  }

  /** @returns microseconds since the request was read; negative when nobody took the answer */
  #send(op: string, buffer: Buffer, length: number): number {
    const result = this.#options.send(buffer, length)
    if (result < 0 && !NOBODY_WAITS.includes(result)) {
      this.#options.logger.error({ op, errno: result, length }, 'fuse: the kernel refused an answer')
    }
    return result
  }

  #agree(terms: Negotiated): void {
    this.#terms = terms
    this.direct = canWriteDirectly(terms) ? this.#options.direct : undefined
  }

  accept(terms: Negotiated): void {
    this.#agree(terms)
    this.#options.onAccept(terms)
  }

  refuse(error: Error): void {
    this.#options.onRefuse(error)
  }

  interrupt(uniqueLow: number, uniqueHigh: number): void {
    this.#pending.interrupt(uniqueLow, uniqueHigh)
  }

  noteWriteBack(node: number): void {
    this.#options.writeBacks?.came(node)
  }

  writeBackFailed(node: number, error: unknown): void {
    this.#options.writeBacks?.failed(node, error)
  }

  forget(node: number, times: number): void {
    try {
      this.fs.forget(node, times)
    } catch (error) {
      // A disk that is full, or has failed, leaves what it was the end of for later.
      this.#failures.report(() => ({ op: 'FORGET', node }), error)
    }
  }
}
