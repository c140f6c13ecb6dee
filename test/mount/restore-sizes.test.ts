/** Whoever writes, or reads, by where a file ends goes by where it ends after a restore. */
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Guest, sh } from './guest.ts'
import { noMount } from './harness.ts'
import { restore, worldFor } from './world.ts'

const skip = noMount ?? false
const isRoot = process.getuid?.() === 0

const WRITERS = [
  ...['write', 'pwrite', 'writev', 'rwf_append', 'o_sync', 'o_direct', 'fcntl_append', 'maker', 'aio', 'io_uring', 'stdio'],
  ...['splice', 'fallocate', 'truncate'],
]

/** Longer than a page, so that pages at the wrong place are others. */
function block(letter: string, blocks = 3): string {
  return `${letter.repeat(5000)}\n`.repeat(blocks)
}

t.test('every way of appending, after a restore to less and one to more', { skip }, async (t) => {
  const { mount, dir, guest } = await worldFor(t, 'appends')
  t.same((await guest.run<string[]>('sorted(appends.WRITERS)')).sort(), [...WRITERS].sort(), 'each is asked for')
  for (const name of WRITERS) {
    fs.writeFileSync(`${dir}/${name}`, block('a'))
    await guest.run(`${name} = appends.WRITERS['${name}']('${name}')`)
  }
  mount.ctl('snapshot', '/workspace/a', '--name', 'short')
  for (const name of WRITERS) t.equal(await guest.run(`${name}(b${JSON.stringify(block('b'))})`), block('b').length, name)
  const { undo } = restore(mount, 'short')
  for (const name of WRITERS) {
    t.equal(await guest.run(`${name}(b'short' * 1000)`), 5000, name)
    t.ok(
      fs.readFileSync(`${dir}/${name}`, 'latin1') === `${block('a')}${'short'.repeat(1000)}`,
      `${name}: at the end of what is there`,
    )
  }
  restore(mount, undo ?? '')
  for (const name of WRITERS) {
    t.equal(await guest.run(`${name}(b'long' * 1000)`), 4000, name)
    const expected = `${block('a')}${block('b')}${'long'.repeat(1000)}`
    t.ok(fs.readFileSync(`${dir}/${name}`, 'latin1') === expected, `${name}: at the end of what came back`)
  }
  // What the store has is what the kernel shows.
  const shown = sh('sha256sum *', dir)
  sh('sync; echo 3 > /proc/sys/vm/drop_caches 2>/dev/null || true', dir)
  t.equal(sh('sha256sum *', dir), shown)
})

t.test('every way of reading up to the end', { skip }, async (t) => {
  const { mount, dir, guest } = await worldFor(t, 'appends')
  const sizes = { grown: [10, 3_000_000], shrunk: [3_000_000, 10], emptied: [5000, 0], filled: [0, 5000] } as const
  for (const [name, [size]] of Object.entries(sizes)) fs.writeFileSync(`${dir}/${name}`, 'x'.repeat(size))
  mount.ctl('snapshot', '/workspace/a', '--name', 'first')
  for (const [name, [, size]] of Object.entries(sizes)) {
    fs.writeFileSync(`${dir}/${name}`, 'y'.repeat(size))
    await guest.run(`${name} = appends.reader('${name}')`)
    await guest.run(`${name}()`)
  }
  for (let i = 0; i < 2; i++) {
    const { undo } = restore(mount, 'first')
    for (const [name, [size]] of Object.entries(sizes)) {
      t.same(await guest.run(`${name}() if ${size} > 0 else [os.stat('${name}').st_size, {}]`), [size, {}], name)
    }
    restore(mount, undo ?? '')
    for (const [name, [, size]] of Object.entries(sizes)) {
      t.same(await guest.run(`${name}() if ${size} > 0 else [os.stat('${name}').st_size, {}]`), [size, {}], `${name}, undone`)
    }
  }
})

t.test('a mapping reaches as far as the file does', { skip }, async (t) => {
  const { mount, dir, guest } = await worldFor(t, 'appends')
  fs.writeFileSync(`${dir}/file`, 'long'.repeat(5000))
  mount.ctl('snapshot', '/workspace/a', '--name', 'long')
  await guest.run("fd = os.open('file', os.O_RDWR); memory = mmap.mmap(fd, 20000)")
  await guest.run('os.ftruncate(fd, 4)')
  restore(mount, 'long')
  t.equal(await guest.run('memory[19996:20000]'), 'long', 'no SIGBUS')
  await guest.run("memory[19996:20000] = b'last'; memory.flush()")
  t.equal(fs.readFileSync(`${dir}/file`, 'latin1').slice(-8), 'longlast')
})

t.test('programs that append without a rest, while it is restored again and again', { skip }, async (t) => {
  const { mount, dir } = await worldFor(t, 'appends')
  const flags = ['os.O_APPEND', 'os.O_APPEND | os.O_DIRECT', 'os.O_APPEND | os.O_SYNC']
  fs.mkdirSync(`${dir}/d`)
  for (const [i] of flags.entries()) fs.writeFileSync(`${dir}/d/${i}`, 'begin\n')
  mount.ctl('snapshot', '/workspace/a', '--name', 'short')
  for (const [i] of flags.entries()) fs.writeFileSync(`${dir}/d/${i}`, `begin\n${`${'-'.repeat(99)}\n`.repeat(100)}`)
  mount.ctl('snapshot', '/workspace/a', '--name', 'long')
  const guests = flags.map(() => new Guest(t, dir))
  await Promise.all(
    guests.map((guest, i) =>
      guest.run(`
import threading
fd = os.open('d/${i}', os.O_RDWR | ${flags[i]})
on, count = True, 0
def loop():
    global count
    while on:
        count += 1
        line = (b'%08d' % count).ljust(99, b'.') + b'\\n'
        assert os.write(fd, line) == 100
thread = threading.Thread(target=loop)
thread.start()`),
    ),
  )
  for (let i = 0; i < 6; i++) {
    restore(mount, i % 2 === 0 ? 'short' : 'long')
    for (const [file] of flags.entries()) {
      // What was appended since may be cut by the next restore, but never torn apart.
      const text = fs.readFileSync(`${dir}/d/${file}`, 'latin1')
      const lines = text.split('\n')
      t.equal(lines[0], 'begin')
      const odd = lines.slice(1, -1).filter((line) => !/^(-{99}|\d{8}\.{91})$/.test(line))
      // The kernel may send a write that crosses a page in two: the second half of one may come right after the restore.
      const cut = lines.findIndex((line) => /^\d/.test(line))
      if (odd.length === 1 && odd[0] === lines[cut - 1] && /^\d*\.*$/.test(odd[0] ?? '-')) odd.pop()
      t.same(
        odd.map((line) => JSON.stringify(line).slice(0, 60)),
        [],
        `restore ${i}, file ${flags[file]}: whole lines and nothing else`,
      )
    }
  }
  for (const guest of guests) await guest.run('on = False; thread.join()')
  for (const [file] of flags.entries()) {
    const text = fs.readFileSync(`${dir}/d/${file}`, 'latin1')
    const numbers = text.split('\n').flatMap((line) => (/^\d/.test(line) ? [Number(line.slice(0, 8))] : []))
    const gaps = numbers.slice(1).filter((number, i) => number !== (numbers[i] as number) + 1)
    t.same(gaps, [], 'what was acknowledged after the last restore is there, in order')
  }
})

t.test('a program that holds a file locked keeps no restore waiting for long', { skip: skip || !isRoot }, async (t) => {
  const { mount, dir, guest } = await worldFor(t, 'appends')
  fs.writeFileSync(`${dir}/file`, block('a'))
  mount.ctl('snapshot', '/workspace/a', '--name', 'short')
  fs.appendFileSync(`${dir}/file`, block('b'))
  fs.writeFileSync(`${dir}/other`, 'x')
  // The write has the inode's lock, knows where the file ends, and waits for a page of its own.
  await guest.run("release = appends.stalled('file', b'late' * 1000)")
  restore(mount, 'short')
  t.equal(fs.readFileSync(`${dir}/file`, 'latin1'), block('a'), 'a restore does not wait for it, and others read')
  t.equal(await guest.run('release()'), 4000)
  const expected = `${block('a')}${'late'.repeat(1000)}`
  // The kernel takes the size as soon as the write has let go of the file, which nobody waits for.
  for (let i = 0; i < 1000 && fs.readFileSync(`${dir}/file`, 'latin1') !== expected; i++) await sleep(20)
  t.equal(fs.readFileSync(`${dir}/file`, 'latin1'), expected)
  fs.appendFileSync(`${dir}/file`, 'end')
  t.equal(fs.readFileSync(`${dir}/file`, 'latin1'), `${expected}end`)
  guest.end()
  t.equal(await mount.stop(), 0)
  await mount.start()
  t.equal(fs.readFileSync(`${dir}/file`, 'latin1'), `${expected}end`)
})
