/** How many bytes an extended attribute counts for in quotas, and in what one inode may have of them. */
const ACL_PREFIX = 'system.posix_acl_'
/** An ACL of a directory's default kind comes with each inode that is made in it: a small one costs nothing, as the inode does. */
const FREE_ACL_BYTES = 256
/** Beside name and value, what finding it takes: of the smallest there are not too many. */
const OVERHEAD_BYTES = 16

/** @param value undefined: there is none */
export function xattrCost(name: string, value: Uint8Array | undefined | null): number {
  if (value === undefined || value === null) return 0
  if (name.startsWith(ACL_PREFIX) && value.length <= FREE_ACL_BYTES) return 0
  return OVERHEAD_BYTES + name.length + value.length
}
