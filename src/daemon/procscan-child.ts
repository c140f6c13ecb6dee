/**
 * The program that looks into /proc for `holders.ts`. Its word is the device; each line of its input asks for a look, and says
 * what is not to be looked into: `PID`, or `PID,UID` for all processes of a user. Or it asks for what is watched. It says what it does in lines of JSON, each
 * written before it goes on: it may wait in the kernel then, until it is killed. It ends with its input.
 */
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { sharesDescriptors } from '../fuse/binding.ts'
import type { ScanLine, ScanQuestion } from './holders.ts'
import { scanProcesses, scanWatches, seesAll } from './procscan.ts'

const [device = ''] = process.argv.slice(2)

function say(line: ScanLine): void {
  writeSync(1, `${JSON.stringify(line)}\n`)
}

function look(question: ScanQuestion): void {
  if (question === 'watches') say({ watches: scanWatches(device) })
  else lookForHolders(question.skip)
}

function lookForHolders(skip: readonly string[]): void {
  const [pids, uids] = [new Set<number>(), new Set<number>()]
  for (const word of skip) {
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
}

createInterface({ input: process.stdin }).on('line', (line) => look(JSON.parse(line) as ScanQuestion))
