/** The addon built with gcc's address and undefined behaviour sanitizers, under the tests that use all of it. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t from 'tap'
import { packageRoot } from '../../src/host/version.ts'

/** `npm test` says so loudly, with the package that is missing, and CI fails on it. */
const skip = process.env['NEXUS_NO_SANITIZERS'] === '1' ? 'NO SANITIZERS HERE: the addon is tested without them' : false

t.test('neither a test nor a sanitizer has anything to say', { skip }, async (t) => {
  const asan = spawn(process.execPath, [join(packageRoot(), 'scripts', 'asan.mjs')], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => void asan.kill('SIGKILL'))
  let said = ''
  for (const stream of [asan.stdout, asan.stderr]) {
    stream.on('data', (text: Buffer) => {
      said += text.toString()
    })
  }
  const [status] = (await once(asan, 'close')) as [number | null]
  t.equal(status, 0, said)
  t.match(said, /^ok {3}sanitizers: fuzz\/addon, fuse\/channel, mount\/posix-data/m)
})
