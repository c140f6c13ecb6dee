/**
 * The program that looks into /proc for `holders.ts`. Its words are the device, and what is not to be looked into: `PID`, or
 * `PID,UID` for all processes of a user. It says what it does in lines of JSON, each written before it goes on: it may wait in
 * the kernel then, until it is killed.
 */
import { writeSync } from 'node:fs'
import { sharesDescriptors } from '../fuse/binding.ts'
import type { ScanLine } from './holders.ts'
import { scanProcesses, seesAll } from './procscan.ts'

function say(line: ScanLine): void {
  writeSync(1, `${JSON.stringify(line)}\n`)
}

const [device = '', ...skipped] = process.argv.slice(2)
const [pids, uids] = [new Set<number>(), new Set<number>()]
for (const word of skipped) {
  const [pid, uid] = word.split(',').map(Number)
  if (pid !== undefined) pids.add(pid)
  if (uid !== undefined) uids.add(uid)
}
scanProcesses({
  device,
  skip: { pids, uids },
  sharesDescriptors,
  onLook: (looked) => say({ look: looked }),
  onFound: (found) => say({ found }),
})
say({ done: { seesAll: seesAll() } })
