/**
 * Processes that can change a file without a request that names them: they have it open for writing, or mapped so that
 * a store changes it. `src/daemon/holders.ts` finds them in /proc.
 */

export interface Process {
  pid: number
  /** what the kernel judges its accesses by (the filesystem uid); one Process for each uid that a thread of it has */
  uid: number
  comm: string
}

export interface Holder extends Process {
  /** of the mount that was asked about: st_ino is the node id */
  node: number
  how: 'writes' | 'maps'
}

export interface Holders {
  holders: Holder[]
  /** processes that could not be looked into: each may hold anything */
  unreadable: Process[]
  /** false when there may be processes that cannot be seen from here at all, or the look did not come to its end */
  isComplete: boolean
}

/** Looks once; never rejects: what cannot be found out is said in the answer. */
export type LookForHolders = () => Promise<Holders>
