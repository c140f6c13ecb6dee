/** What programs store through shared mappings, as seek(2), cp and a file that grows see it. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import t, { type Test } from 'tap'
import { mountFor, noMount, plainFor } from './harness.ts'
import { python } from './posix.ts'

const skip = noMount ?? false

function allTrue(t: Test, directory: string): void {
  const results = python<Record<string, unknown>>('mapped.py', directory, null)
  t.ok(Object.keys(results).length > 100)
  const wrong = Object.entries(results).filter(([, value]) => value !== true)
  t.strictSame(wrong, [])
}

t.test('on the local disk', async (t) => allTrue(t, plainFor(t)))

t.test('in the mount, outside of a workspace and inside', { skip, timeout: 300_000 }, async (t) => {
  const mount = await mountFor(t)
  fs.mkdirSync(mount.at('plain'))
  fs.mkdirSync(mount.at('workspace', 'w'))
  allTrue(t, mount.at('plain'))
  allTrue(t, mount.at('workspace', 'w'))
})

t.test('what cannot be written back counts as data', { skip }, async (t) => {
  const mount = await mountFor(t)
  fs.mkdirSync(mount.at('workspace', 'w'))
  const store = (size: number): string => {
    const script = `
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
pages = mmap.mmap(fd, ${size})
pages[8192:8197] = b"there"
print(os.lseek(fd, 0, os.SEEK_DATA) <= 8192 < os.lseek(fd, 8192, os.SEEK_HOLE))
sys.stdout.flush()
os._exit(0)`
    return execFileSync('python3', ['-c', script, mount.at('workspace', 'w', 'f')], { encoding: 'utf8' })
  }
  fs.writeFileSync(mount.at('workspace', 'w', 'f'), '')
  fs.truncateSync(mount.at('workspace', 'w', 'f'), 1 << 20)
  mount.ctl('quota', 'set', '/workspace/w', '--bytes', '1')
  t.equal(store(1 << 20), 'True\n')
  mount.ctl('quota', 'set', '/workspace/w', '--bytes', '1MiB')
  t.equal(store(1 << 20), 'True\n')
})
