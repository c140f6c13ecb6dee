/**
 * Files whose size the kernel may have wrong. A restore changes sizes behind the kernel's back, and no notify tells it of
 * one: it drops attributes and pages, but appends and looks for the end by the size that it had (fs/fuse/inode.c,
 * fuse_reverse_inval_inode; mm/filemap.c, generic_write_checks). It takes a size from any answer with attributes, so
 * after a restore a thread of ours touches such files through the mount (FileToucher).
 *
 * Until then:
 * - a WRITE of a descriptor with O_APPEND is put at the real end, wherever the kernel thought that to be;
 * - what the kernel cached at the wrong place is dropped once the size is right.
 */
export class StaleSizes {
  readonly #nodes = new Set<number>()
  readonly #misplaced = new Set<number>()
  /** a process before this one did not come to the end of a restore: any size may be wrong */
  all = false

  get isEmpty(): boolean {
    return !this.all && this.#nodes.size === 0
  }

  has(node: number): boolean {
    return this.all || this.#nodes.has(node)
  }

  add(node: number): void {
    this.#nodes.add(node)
  }

  /** The kernel has the right size now, or has the file no longer. */
  settled(node: number): void {
    this.#nodes.delete(node)
  }

  /** What was appended is not where the kernel has it. */
  misplaced(node: number): void {
    this.#misplaced.add(node)
  }

  /** Nodes below which the kernel may have appended bytes at a wrong place, and which are forgotten here. */
  takeMisplaced(volumes: (node: number) => boolean): number[] {
    const taken = [...this.#misplaced].filter(volumes)
    for (const node of taken) this.#misplaced.delete(node)
    return taken
  }
}
