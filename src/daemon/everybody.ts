/** The socket of a mount for several users, on which each of them gets what relations give him. */
import fs from 'node:fs'
import path from 'node:path'
import { publicDirectory, publicSocketOf } from '../control/location.ts'
import { type ControlServer, serveEverybody } from '../control/server.ts'
import type { Service } from '../control/service.ts'
import { NexusError, systemCode } from '../errors.ts'
import { peerCredentials } from '../fuse/binding.ts'
import type { Logger } from '../logger.ts'

const DIRECTORY_MODE = 0o755
const OTHERS_WRITE = 0o022

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
    return await serveEverybody({ uidOf: (fd) => peerCredentials(fd).uid, serviceFor }, { socketPath, logger })
  } catch (error) {
    logger.warn({ err: error }, `${socketPath} cannot be served: nexusctl is root's alone until the next mount`)
    return undefined
  }
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
