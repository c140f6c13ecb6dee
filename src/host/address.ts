/**
 * Unix socket paths are limited to 107 bytes (`sun_path` in unix(7)), data directories are not.
 * A longer path is reached through a descriptor of its directory, `/proc/self/fd/N/control.sock`:
 * the socket stays in the data directory with its permissions, and whoever knows the directory
 * finds it, whatever their environment and user.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { basename, dirname } from 'node:path'

const socketPathBytesMax = 107
/** O_PATH in asm-generic/fcntl.h, which Node does not name: needs no read permission. */
const O_PATH = 0o10000000

/** A path short enough for bind(2) and connect(2); valid until closed. */
export interface SocketAddress {
  readonly path: string
  close(): void
}

/** Throws the system error of open(2) when the directory of a long path cannot be opened. */
export function openAddress(socketPath: string): SocketAddress {
  if (Buffer.byteLength(socketPath) <= socketPathBytesMax) return { path: socketPath, close: () => {} }
  const fd = openSync(dirname(socketPath), O_PATH | constants.O_DIRECTORY)
  let open = true
  return {
    path: `/proc/self/fd/${fd}/${basename(socketPath)}`,
    close: () => {
      if (open) closeSync(fd)
      open = false
    },
  }
}
