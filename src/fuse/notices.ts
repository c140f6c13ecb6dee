/**
 * The messages that tell the kernel what changed behind its back, each with the lane that it is sent in. A message is a
 * `fuse_out_header` whose `unique` is 0 and whose `error` is the notify's code.
 *
 * A lane is what a notify can wait for inside the kernel (fs/fuse/inode.c, dir.c, readdir.c of Linux 6.18). All take
 * `fc->killsb` for reading, which only the end of the superblock takes for writing, and wait for an inode that is being
 * evicted, which waits for write-back that our answers end. Besides:
 *
 * | notify                                      | locks, in this order                                    | lane         |
 * | ------------------------------------------- | ------------------------------------------------------- | ------------ |
 * | INVAL_INODE with offset -1, INC_EPOCH, RESEND | spinlocks                                             | `attributes` |
 * | INVAL_INODE from 0 on, no directory         | each page's lock; its write-back                        | `pages`      |
 * | INVAL_INODE from 0 on, a private listing    | each page's lock, under which nothing is waited for     | `private`    |
 * | INVAL_INODE from 0 on, any other directory  | each page's lock, under which getdents(2) fills memory  | `names`      |
 * | INVAL_ENTRY, with or without EXPIRE_ONLY    | the parent's inode lock                                 | `names`      |
 * | DELETE                                      | the parent's inode lock, then the child's               | `names`      |
 *
 * The invariant: *an answer to a request waits for no lock that the request may hold*. A request holds inode locks (write(2)
 * its file's, mkdir(2) its directory's, getdents(2) a directory's and, while it is served from a complete listing in the
 * cache, that listing's page), and where it fills or reads memory of its user it may hold them for ever: the memory may be
 * a mapped file of a FUSE server that never answers. Page locks of files are held by READ and WRITE requests and by
 * short sections only: user memory is faulted in before a page is locked (fuse_fill_write_pages). So an answer may wait for
 * `attributes`, `pages` and `private`, and for `names` only because that has a deadline.
 */
import { integersOf } from '../bytes.ts'
import { EXPIRE_ONLY, Notify, OUT_HEADER_BYTES } from './protocol.ts'
import { writeOutHeader } from './reply.ts'
import { writeU64 } from './wire.ts'

export type LaneName = 'attributes' | 'pages' | 'private' | 'names'

/** A message that is sent in one lane and no other. */
export interface Notice<Lane extends LaneName> {
  readonly lane: Lane
  /** FUSE_NOTIFY_* */
  readonly code: number
  readonly bytes: Buffer
}

/** A message that may wait for a directory. */
export interface NameNotice extends Notice<'names'> {
  readonly directory: number
  /** it waits for the pages of the directory's listing, not for the directory's lock */
  readonly isListing: boolean
}

/** Attributes and ACLs. */
export function attributesNotice(node: number): Notice<'attributes'> {
  return { lane: 'attributes', code: Notify.INVAL_INODE, bytes: invalidateInode(node, -1) }
}

/** Every name, positive or negative, in all directories: each is looked up again before it is used. Since 6.16. */
export function epochNotice(): Notice<'attributes'> {
  return { lane: 'attributes', code: Notify.INC_EPOCH, bytes: framed(Buffer.alloc(OUT_HEADER_BYTES), Notify.INC_EPOCH) }
}

/** What the process before us had read and not answered is sent again. Since 6.9. */
export function resendNotice(): Notice<'attributes'> {
  return { lane: 'attributes', code: Notify.RESEND, bytes: framed(Buffer.alloc(OUT_HEADER_BYTES), Notify.RESEND) }
}

/**
 * Attributes, ACLs, and cached pages of what is no directory.
 * @param length 0 means to the end
 */
export function pagesNotice(node: number, offset = 0, length = 0): Notice<'pages'> {
  return { lane: 'pages', code: Notify.INVAL_INODE, bytes: invalidateInode(node, offset, length) }
}

/** The pages of a listing that the kernel never completes (private-listings.ts). */
export function privateListingNotice(node: number): Notice<'private'> {
  return { lane: 'private', code: Notify.INVAL_INODE, bytes: invalidateInode(node, 0) }
}

/** Attributes, ACLs and the cached listing of a directory. */
export function listingNotice(node: number): NameNotice {
  const bytes = invalidateInode(node, 0)
  return { lane: 'names', code: Notify.INVAL_INODE, bytes, directory: node, isListing: true }
}

/**
 * fuse_notify_inval_entry_out: a name, positive or negative.
 * @param how `expire` leaves mounts, working directories and everything cached below the name alone
 */
export function entryNotice(parent: number, name: string, how: 'drop' | 'expire'): NameNotice {
  const message = Buffer.alloc(OUT_HEADER_BYTES + 16 + name.length + 1)
  writeU64(integersOf(message), OUT_HEADER_BYTES, parent)
  message.writeUInt32LE(name.length, OUT_HEADER_BYTES + 8)
  message.writeUInt32LE(how === 'expire' ? EXPIRE_ONLY : 0, OUT_HEADER_BYTES + 12)
  message.write(name, OUT_HEADER_BYTES + 16, 'latin1')
  const bytes = framed(message, Notify.INVAL_ENTRY)
  return { lane: 'names', code: Notify.INVAL_ENTRY, bytes, directory: parent, isListing: false }
}

/** fuse_notify_delete_out: a name is gone, and inotify watchers of the child hear of it. */
export function deletionNotice(parent: number, child: number, name: string): NameNotice {
  const message = Buffer.alloc(OUT_HEADER_BYTES + 24 + name.length + 1)
  const integers = integersOf(message)
  writeU64(integers, OUT_HEADER_BYTES, parent)
  writeU64(integers, OUT_HEADER_BYTES + 8, child)
  message.writeUInt32LE(name.length, OUT_HEADER_BYTES + 16)
  message.write(name, OUT_HEADER_BYTES + 24, 'latin1')
  return { lane: 'names', code: Notify.DELETE, bytes: framed(message, Notify.DELETE), directory: parent, isListing: false }
}

/** fuse_notify_inval_inode_out */
function invalidateInode(node: number, offset: number, length = 0): Buffer {
  const message = Buffer.alloc(OUT_HEADER_BYTES + 24)
  const integers = integersOf(message)
  writeU64(integers, OUT_HEADER_BYTES, node)
  writeU64(integers, OUT_HEADER_BYTES + 8, offset)
  writeU64(integers, OUT_HEADER_BYTES + 16, length)
  return framed(message, Notify.INVAL_INODE)
}

function framed(message: Buffer, code: number): Buffer {
  writeOutHeader(integersOf(message), message.length, code, 0, 0)
  return message
}
