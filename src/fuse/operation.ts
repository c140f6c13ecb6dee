/** What an entry of the opcode table is (see requests.ts), and what its function gets and gives. */
import type { FsError } from '../errors.ts'
import type { Filesystem } from '../vfs/filesystem.ts'
import type { Negotiated } from './init.ts'
import type { PrivateListings } from './private-listings.ts'
import type { Reply } from './reply.ts'
import type { Request } from './request.ts'

/** Bytes of payload that the operation has put into the reply, or what the answer has to wait for. A failure is thrown. */
export type OperationAnswer = number | Late

/**
 * An answer that has to wait. What it waits for must need no lock that the request may hold in the kernel (notices.ts):
 *
 * - `disk`: what was written before is stored
 * - `pages`: the kernel drops pages of a file
 * - `listing`: the kernel drops pages of a listing that differs by caller
 * - `admission`: names that a new user may not see expire; the lane of names has a deadline
 */
export interface Late {
  readonly waitsFor: WaitsFor
  /** resolves with nothing, or with what puts the answer into the reply; rejects with a failure */
  readonly answer: Promise<void> | Promise<Encode>
}

export type WaitsFor = 'disk' | 'pages' | 'listing' | 'admission'

/** Called when an answer that waited can be given. @returns bytes of payload */
export type Encode = (reply: Reply) => number

/** The answer of operations that the kernel does not wait for; only they may give it. */
export const NO_REPLY = -1

/** The connection that a request belongs to, as far as operations need it. */
export interface Connection {
  readonly fs: Filesystem
  /** what INIT agreed on; undefined before it */
  readonly negotiated: Negotiated | undefined
  /** undefined: every listing is the same for all who may read the directory */
  readonly privateListings: PrivateListings | undefined
  /** files whose makers write past the page cache; undefined: none do */
  readonly direct: DirectFiles | undefined
  /** a file that does not exist and can be opened all the same, while somebody wants the kernel to hear what OPEN is answered */
  readonly probe: Probe | undefined
  /** Ends INIT well: all that follows is read with these terms. */
  accept(terms: Negotiated): void
  /** Ends INIT with a failure that only another kernel can mend. */
  refuse(error: Error): void
  /** The kernel would like the answer of an earlier request now. */
  interrupt(uniqueLow: number, uniqueHigh: number): void
  /** A WRITE came from the kernel's write-back, so more of them may be queued. */
  noteWriteBack(node: number): void
  /** And could not be stored. */
  writeBackFailed(node: number, error: unknown): void
  /** Passes a FORGET on; what goes wrong is logged, since nobody waits for an answer. */
  forget(node: number, times: number): void
}

/** A name in the root directory that nobody else knows, and its inode's owner. */
export interface Probe {
  name: string
  uid: number
}

/**
 * Files that were opened as they were made, for writing only: what is written goes past the page cache, which would
 * ask for `security.capability` first and copy every byte once more. Whoever opens such a file later reads through the
 * page cache; a read that the kernel sends while something is written could leave old bytes there.
 */
export interface DirectFiles {
  /** a file was made, and is written directly */
  made(node: number): void
  /** the kernel may cache what a file holds now */
  cached(node: number): void
  /**
   * Bytes were written directly.
   * @param again by a process before this one, which did not live to answer
   * @returns when the kernel has dropped what it had of them; undefined when it had nothing
   */
  written(node: number, offset: number, length: number, again: boolean): Promise<void> | undefined
}

export interface Operation {
  /** least bytes of the body; shorter requests are EINVAL before `run` is called */
  readonly bodyBytes: number
  /** true when the kernel takes no answer, not even an error */
  readonly silent?: true
  run(connection: Connection, request: Request, reply: Reply): OperationAnswer
  /**
   * The answer to a request that a process before this one served and did not live to answer; only for operations that
   * would fail, or do more, when they are run again.
   */
  again?(connection: Connection, request: Request, reply: Reply): OperationAnswer
}

/** Where it is written which request is being served, so that a next process knows; see `Operation.again`. */
export interface RequestMark {
  /** a request is about to be served */
  begin(uniqueLow: number, uniqueHigh: number): void
  /** whether a process before this one made the changes of a request, which is sent again */
  isDone(uniqueLow: number, uniqueHigh: number): boolean
  /** whether process after process died over a request, which is sent again */
  isDeadly(uniqueLow: number, uniqueHigh: number): boolean
}

/** An operation that the kernel expects no answer to. */
export function silent(bodyBytes: number, run: (connection: Connection, request: Request) => void): Operation {
  return {
    bodyBytes,
    silent: true,
    run(connection, request) {
      run(connection, request)
      return NO_REPLY
    },
  }
}

/** `Operation.again` where the answer says no more than that it succeeded. */
export function emptyAgain(): number {
  return 0
}

/** An operation that always gets the same errno, which the kernel takes as a lasting answer. */
export function refused(error: FsError): Operation {
  return {
    bodyBytes: 0,
    run() {
      throw error
    },
  }
}
