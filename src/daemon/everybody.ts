/** The socket of a mount for several users, on which each of them gets what relations give him. */
import fs from 'node:fs'
import path from 'node:path'
import type { Service } from '../api/calls.ts'
import { NexusError, systemCode } from '../errors.ts'
import { peerCredentials } from '../fuse/binding.ts'
import { publicDirectory, publicSocketOf } from '../host/location.ts'
import type { Logger } from '../logger.ts'
import { type ControlServer, serveEverybody } from '../server/server.ts'

const DIRECTORY_MODE = 0o755
const OTHERS_WRITE = 0o022
/** The kernel's default (/proc/sys/kernel/overflowuid), see user_namespaces(7). */
const OVERFLOW_UID = 65534
const WHOLE_MAP = /^\s*0\s+0\s+4294967295\s*$/

export interface Everybody {
  data: string
  logger: Logger
  serviceFor(uid: number): Service
}

/** Serves everybody; without that, which the log tells, root alone has `nexusctl`. */
export async function serveUsers({ data, logger, serviceFor }: Everybody): Promise<ControlServer | undefined> {
  const socketPath = publicSocketOf(data)
  try {
    prepareDirectory(publicDirectory)
    const uidMap = fs.readFileSync('/proc/self/uid_map', 'utf8')
    return await serveEverybody({ uidOf: (fd) => knownUid(peerCredentials(fd).uid, uidMap), serviceFor }, { socketPath, logger })
  } catch (error) {
    logger.warn({ err: error }, `${socketPath} cannot be served: nexusctl is root's alone until the next mount`)
    return undefined
  }
}

/**
 * A caller's uid, unless it may stand for many: that is how a user namespace which has not all users shows the others.
 * @param uidMap of /proc/self/uid_map
 * @throws NexusError NEXUS_DENIED
 */
export function knownUid(uid: number, uidMap: string): number {
  if (uid !== OVERFLOW_UID || WHOLE_MAP.test(uidMap)) return uid
  throw new NexusError('NEXUS_DENIED', `the uid ${uid} may be anybody in this user namespace: map the user's own`)
}

/**
 * Makes a directory in which nobody but root can put or replace a socket.
 * @throws NexusError NEXUS_DENIED when there is one that others could do so in, or that is no directory
 */
export function prepareDirectory(directory: string): void {
  refuseOthers(path.dirname(directory), fs.statSync(path.dirname(directory)))
  try {
    fs.mkdirSync(directory)
    // Whatever the umask.
    fs.chmodSync(directory, DIRECTORY_MODE)
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
  refuseOthers(directory, fs.lstatSync(directory))
}

function refuseOthers(directory: string, stats: fs.Stats): void {
  if (stats.isDirectory() && stats.uid === 0 && (stats.mode & OTHERS_WRITE) === 0) return
  throw new NexusError('NEXUS_DENIED', `${directory} is not a directory that only root can write: chown root and chmod 755 it`)
}
