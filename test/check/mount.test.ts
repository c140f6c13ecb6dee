/** At a real mount: a check beside writers finds nothing, and nobody waits for it. */
import { execFile, spawn } from 'node:child_process'
import fs from 'node:fs'
import { promisify } from 'node:util'
import t from 'tap'
import type { FsckInfo } from '../../src/api/store.ts'
import { mountFor, nexusctl, noMount } from '../mount/harness.ts'

const skip = noMount === undefined ? {} : { skip: noMount }
const FILES = 3000
/** On a processor that nobody else wants. */
const STAT_MS_MAX = 50

/** Makes, renames, links, overwrites and removes until it is told to end. */
const WRITER = `
import os, sys
top = sys.argv[1]
os.makedirs(top)
n = 0
while not os.path.exists(top + '/end'):
    d = f'{top}/{n % 7}'
    os.makedirs(d, exist_ok=True)
    with open(f'{d}/{n}', 'wb') as f: f.write(os.urandom(n * 37 % 9000))
    if n % 3 == 0: os.link(f'{d}/{n}', f'{top}/l{n}')
    if n % 5 == 0: os.rename(f'{d}/{n}', f'{top}/r{n}')
    elif n % 4 == 0: os.unlink(f'{d}/{n}')
    n += 1
`

/**
 * Prints the 99th percentile of a stat in milliseconds, taken until stdin ends, how many were taken, and how many times longer
 * than its processor time a computation took: on a busy machine whoever answers has to wait for a processor as well.
 */
const STATER = `
import os, select, sys, time
took = []
def spun():
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.02: pass
    return (time.perf_counter() - wall) / 0.02
slower = [spun()]
spun_at = time.perf_counter()
while not select.select([sys.stdin], [], [], 0.001)[0]:
    start = time.perf_counter()
    os.stat(sys.argv[1] + f'/{len(took) % 3000}')
    took.append((time.perf_counter() - start) * 1000)
    try: os.stat(sys.argv[1] + f'/absent{len(took)}')
    except FileNotFoundError: pass
    took.append((time.perf_counter() - start) * 1000)
    if time.perf_counter() - spun_at > 1:
        slower.append(spun())
        spun_at = time.perf_counter()
took.sort()
print(took[int(len(took) * 0.99)], len(took), max(1, sum(slower) / len(slower)))
`

t.test('fsck beside writers', skip, async (t) => {
  const mount = await mountFor(t)
  fs.mkdirSync(mount.at('workspace', 'w'))
  const files = mount.at('workspace', 'w', 'files')
  await promisify(execFile)('python3', [
    '-c',
    `import os\nos.makedirs('${files}')\nfor i in range(${FILES}): open(f'${files}/{i}', 'w').write(str(i))`,
  ])
  const running = [1, 2].map((i) => spawn('python3', ['-c', WRITER, mount.at('workspace', 'w', `busy${i}`)]))
  const stater = spawn('python3', ['-c', STATER, files])
  let printed = ''
  stater.stdout.on('data', (text: Buffer) => {
    printed += text.toString()
  })
  const ended = [...running, stater].map((child) => new Promise<number | null>((resolve) => child.once('exit', resolve)))
  t.teardown(() => {
    for (const child of [...running, stater]) child.kill('SIGKILL')
  })
  const words = [mount.data, '--json', 'fsck']
  for (let round = 0; round < 5; round++) {
    const { stdout } = await promisify(execFile)(process.execPath, [nexusctl, '--data', ...words], { cwd: '/' })
    const info = JSON.parse(stdout) as FsckInfo
    t.strictSame(info.findings, [])
    t.ok(info.inodes > FILES)
    mount.ctl('snapshot', '/workspace/w')
  }
  stater.stdin.end('\n')
  for (const i of [1, 2]) fs.writeFileSync(mount.at('workspace', 'w', `busy${i}`, 'end'), '')
  t.strictSame(await Promise.all(ended), [0, 0, 0])
  const [p99 = Number.NaN, count = 0, slower = 1] = printed.split(' ').map(Number)
  t.comment(`99 of 100 stats took at most ${p99.toFixed(2)} ms, of ${count}, on processors ${slower.toFixed(1)} times slower`)
  t.ok(p99 < STAT_MS_MAX * slower)
})
