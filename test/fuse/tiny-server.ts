/**
 * Serves the smallest filesystem, as a child process of channel.test.ts, which says when to answer.
 *
 *     tiny-server.js MOUNTPOINT watch|poll direct|helper
 */
import { mount, mountWithHelper } from '../../src/fuse/binding.ts'
import { TinyFilesystem } from './tinyfs.ts'

/** What the test asks for over the IPC channel. */
export type Command = { type: 'notify'; message: string } | { type: 'release' } | { type: 'stop' }

/** What the server tells the test. */
export type Report =
  | { type: 'mounted' }
  | { type: 'held' }
  | { type: 'results'; results: number[] }
  | { type: 'stamp'; seconds: number; nanos: number }
  | { type: 'ended'; errno: number }

const [, , mountpoint = '', wake, way] = process.argv
const fd =
  way === 'helper'
    ? mountWithHelper(mountpoint, 'fsname=nexus,subtype=nexus')
    : mount(mountpoint, 'rootmode=40000,user_id=0,group_id=0')

/** A test that has ended listens no more. */
function report(message: Report): void {
  if (process.connected) process.send?.(message)
}

const tiny = new TinyFilesystem(fd, {
  wake: wake === 'poll' ? 'poll' : 'watch',
  onHeld: () => report({ type: 'held' }),
  onGetattr: ([seconds = 0, nanos = 0]) => report({ type: 'stamp', seconds, nanos }),
  // Nothing may keep the process alive now.
  onEnd: (errno) => {
    report({ type: 'ended', errno })
    tiny.close()
    process.disconnect()
  },
})

async function notify(message: Buffer): Promise<void> {
  report({ type: 'results', results: await tiny.notifier.send([message]) })
}

process.on('message', (command: Command) => {
  if (command.type === 'notify') void notify(Buffer.from(command.message, 'base64'))
  if (command.type === 'release') tiny.release()
  if (command.type === 'stop') tiny.notifier.stop()
})
report({ type: 'mounted' })
