/** Nodes that programs want to hear of. */
export interface Watches {
  /** with a watch of inotify(7) or fanotify(7) */
  nodes: ReadonlySet<number>
  /** files with a lease (fcntl(2), F_SETLEASE) */
  leased: ReadonlySet<number>
}

/** @returns undefined when not all can be seen: then anything may be watched */
export type LookForWatches = () => Promise<Watches | undefined>
