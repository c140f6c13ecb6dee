/**
 * What a supervisor starts in stuck.test.ts instead of nexusd: it serves the smallest filesystem. The first process does not
 * answer who makes a directory "held", and has a notify wait in the kernel for the lock that he holds; the next ones answer,
 * or end at once where there is a file "mortal" in the data directory.
 *
 *     stuckserver.js serve MOUNTPOINT --data DIRECTORY …
 */
import fs from 'node:fs'
import path from 'node:path'
import { pino } from 'pino'
import { type Asked, SOCKET_FD, type Told } from '../../src/daemon/serve.ts'
import { dieWithParent, Notifier, receiveDescriptor } from '../../src/fuse/binding.ts'
import { KernelNotifier } from '../../src/fuse/notify.ts'
import { TinyFilesystem } from '../fuse/tinyfs.ts'

const ROOT = 1
const ALIVE_MS = 1000

const data = process.argv[5] as string
/** Written by the first when it is stuck: its pid. */
const note = path.join(data, 'stuck')
fs.mkdirSync(data, { recursive: true })
const isFirst = !fs.existsSync(note)

function tell(told: Told): void {
  process.send?.(told)
}

async function serve(): Promise<void> {
  const tiny: TinyFilesystem = new TinyFilesystem(receiveDescriptor(SOCKET_FD), {
    wake: 'watch',
    onHeld: () => {
      if (!isFirst) return tiny.release()
      void kernel.invalidateEntry(ROOT, 'held')
      fs.writeFileSync(note, String(process.pid))
    },
    onEnd: () => process.exit(1),
  })
  const kernel = new KernelNotifier({
    newSender: () => new Notifier(tiny.channel),
    isDirectory: () => true,
    canDropNames: () => false,
    writeBack: async () => undefined,
    logger: pino({ enabled: false }),
  })
  process.on('message', ({ ask }: Asked) => {
    if (ask !== 'stop') return
    tell({ told: 'unmounted', why: 'signal' })
    tiny.close()
    process.disconnect()
  })
  if (!isFirst) await kernel.resend()
  tell({ told: 'serving', canBeReplaced: true })
  setInterval(() => tell({ told: 'alive' }), ALIVE_MS).unref()
}

dieWithParent(process.ppid)
if (!isFirst && fs.existsSync(path.join(data, 'mortal'))) process.exit(1)
process.on('message', ({ ask }: Asked) => {
  if (ask === 'serve') {
    tell({ told: 'begun' })
    tell({ told: 'opened' })
  }
  if (ask === 'take the mount') void serve()
})
tell({ told: 'ready' })
