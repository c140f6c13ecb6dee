/** Pages of 4 KiB. Where the kernel has larger ones it reads and writes back several of these together. */
export const PAGE_BYTES = 4096

/** Where the page begins that holds a byte. */
export function pageOf(offset: number): number {
  return offset - (offset % PAGE_BYTES)
}

/** Where the next page begins, if none does there. */
export function pageAfter(offset: number): number {
  return offset % PAGE_BYTES === 0 ? offset : pageOf(offset) + PAGE_BYTES
}
