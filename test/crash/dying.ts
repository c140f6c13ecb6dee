/**
 * `nexusd`, whose serving processes die where it hurts, as DYING says:
 * - `changes`: between a change and its answer, as soon as one has served for a while
 * - `lookups`: whenever somebody looks for a name `deadly`
 * - `notifies`: once, before the kernel is told that an entry `deadly` has changed
 */
import fs from 'node:fs'
import path from 'node:path'
import { runNexusd } from '../../src/cli/nexusd.ts'
import { Handover } from '../../src/daemon/handover.ts'
import { Channel } from '../../src/fuse/binding.ts'
import { KernelNotifier } from '../../src/fuse/notify.ts'
import { NexusFs } from '../../src/vfs/nexusfs.ts'

/** After the first answer; longer than what counts as a quick death, on a machine that is busy with other tests too. */
const SERVES_MS = 700
const DEADLY = 'deadly'

function die(): void {
  process.kill(process.pid, 'SIGKILL')
}

function dieAfterChanges(): void {
  let firstAnswer: number | undefined
  let sequence: () => number = () => 0
  let before = 0
  const { reply } = Channel.prototype
  const { logIsRead, begin } = Handover.prototype
  Handover.prototype.logIsRead = function (recovered, now) {
    sequence = now
    logIsRead.call(this, recovered, now)
  }
  Handover.prototype.begin = function (uniqueLow, uniqueHigh) {
    before = sequence()
    begin.call(this, uniqueLow, uniqueHigh)
  }
  Channel.prototype.reply = function (buffer, length) {
    const isChange = sequence() !== before
    firstAnswer ??= performance.now()
    if (isChange && performance.now() - firstAnswer > SERVES_MS) die()
    return reply.call(this, buffer, length)
  }
}

function dieAtLookups(): void {
  const { lookup } = NexusFs.prototype
  NexusFs.prototype.lookup = function (caller, parent, name) {
    if (name === DEADLY) die()
    return lookup.call(this, caller, parent, name)
  }
}

function dieAtNotifies(data: string): void {
  const mark = path.join(path.dirname(data), 'died')
  const { deleteEntry } = KernelNotifier.prototype
  KernelNotifier.prototype.deleteEntry = async function (parent, child, name) {
    if (name === DEADLY && !fs.existsSync(mark)) {
      fs.writeFileSync(mark, '')
      die()
    }
    await deleteEntry.call(this, parent, child, name)
  }
}

if (process.argv[2] === 'serve') {
  const dying = process.env['DYING']
  if (dying === 'changes') dieAfterChanges()
  else if (dying === 'lookups') dieAtLookups()
  else dieAtNotifies(process.argv[process.argv.indexOf('--data') + 1] as string)
}

process.exitCode = await runNexusd(process.argv.slice(2))
