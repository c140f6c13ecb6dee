/** What programs that watch files and directories hear of a restore: each kind of event, and nothing that is not so. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ERRAND_GID } from '../../src/vfs/tidings.ts'
import { Guest, scriptOf, sh } from './guest.ts'
import { noMount } from './harness.ts'
import { restore, worldFor } from './world.ts'

const skip = noMount ?? false
const isRoot = process.getuid?.() === 0
/** Busy machines tell late; what is never told takes so long to find out. */
const HEARD_MS_MAX = 100_000

/** What a watcher heard, as `path EVENT name`, until all that is wanted was there and then nothing more for a while. */
async function heard(guest: Guest, wanted: readonly string[], watcher = 'w'): Promise<string[]> {
  const all = new Set<string>()
  const until = Date.now() + HEARD_MS_MAX
  for (let rounds = 0; rounds < 2; ) {
    const events = await guest.run<[string, string, string][]>(`${watcher}.events(0.5)`)
    for (const event of events) all.add(event.join(' ').trim())
    const isDone = wanted.every((one) => all.has(one)) || Date.now() > until
    rounds = isDone && events.length === 0 ? rounds + 1 : 0
  }
  return [...all].sort()
}

function missing(wanted: readonly string[], told: readonly string[]): string[] {
  return wanted.filter((one) => !told.includes(one))
}

const ASK_AGAIN = `
import ctypes, errno, os, sys
ctypes.CDLL(None, use_errno=True).setfsgid(ctypes.c_uint(${ERRAND_GID}))
try: eval(sys.argv[1]); print('done')
except OSError as error: print(errno.errorcode[error.errno])
`

const BEFORE = `
  mkdir -p d/in d/gone plain; for f in content longer mode touched back over unseen; do echo 1 > d/$f; done
  echo same > d/same; ln -s a d/link; mkfifo d/fifo; echo 1 > d/script; chmod 755 d/script; echo 1 > d/one; ln d/one d/other
  mkdir d/turned; echo 1 > d/typed
`
const CHANGED = `
  echo 2 > d/content; echo 2 > d/one; echo much longer > d/longer; chmod 600 d/mode; touch d/touched; rm d/back; echo 3 > d/made; mkdir d/newdir
  echo 2 > d/over.new; mv d/over.new d/over; echo 2 > d/unseen; rmdir d/gone; ln -sf b d/link; rm d/fifo; echo 2 > d/script
  mkdir -p d/deep/deeper; echo 3 > d/deep/deeper/f; rmdir d/turned; echo 2 > d/turned; rm d/typed; mkdir d/typed; touch d/in/inner
`

t.test('each event of a watched directory', { skip }, async (t) => {
  const { mount, dir, guest } = await worldFor(t, 'remembers')
  sh(BEFORE, dir)
  mount.ctl('snapshot', '/workspace/a', '--name', 'old')
  sh(CHANGED, dir)
  await guest.run(`w = remembers.Watch('d')`)
  // What the kernel has forgotten has no inode to be told of, only a name; and of the directory it has the inode alone.
  if (isRoot) sh('echo 2 > /proc/sys/vm/drop_caches', dir)
  const { undo } = restore(mount, 'old')
  const content = ['content', 'longer', 'unseen'].flatMap((name) => [`d MODIFY ${name}`, `d CLOSE_WRITE ${name}`])
  const wanted = [
    ...content,
    ...['d MODIFY script', 'd ATTRIB mode', 'd ATTRIB touched', 'd ATTRIB', 'd ATTRIB|ISDIR in'],
    ...['d CREATE back', 'd CLOSE_WRITE back', 'd CREATE over', 'd CREATE link', 'd CREATE fifo', 'd CREATE|ISDIR gone'],
    ...['d DELETE made', 'd DELETE|ISDIR newdir', 'd DELETE|ISDIR deep', 'd CREATE|ISDIR turned', 'd CREATE typed'],
  ]
  const told = await heard(guest, wanted)
  t.same(missing(wanted, told), [])
  const names = told.map((one) => one.split(' ')[2])
  for (const name of ['same', 'over.new', 'inner', 'deeper']) t.notOk(names.includes(name), `${name} is not told of`)
  t.ok(told.includes('d MODIFY one') || told.includes('d MODIFY other'), 'a file with two names is told of by one of them')
  t.notOk(told.includes('d CLOSE_WRITE script'), 'a program is not opened for writing: it could not be executed meanwhile')
  t.notOk(
    told.some((one) => /^d (DELETE|CREATE) (content|longer|unseen|mode|touched)$/.test(one)),
    'what was there and is there neither came nor went',
  )

  restore(mount, undo ?? '')
  const undone = [
    ...['d MODIFY content', 'd MODIFY longer', 'd CREATE made', 'd CREATE|ISDIR newdir', 'd CREATE|ISDIR deep'],
    ...['d DELETE back', 'd DELETE fifo', 'd DELETE|ISDIR gone', 'd CREATE turned', 'd CREATE|ISDIR typed', 'd CREATE over'],
  ]
  t.same(missing(undone, await heard(guest, undone)), [], 'and of the undo')
})

t.test('it changes nothing: no times, no content, no record in the log', { skip }, async (t) => {
  const { mount, dir, guest } = await worldFor(t, 'remembers')
  sh(BEFORE, dir)
  const look = 'stat -c "%n %i %A %h %s %x %y %z" . d $(find d | sort); cat d/content; cat d/back || true; ls -A d'
  const before = sh(look, dir)
  mount.ctl('snapshot', '/workspace/a', '--name', 'old')
  sh(CHANGED, dir)
  const changed = sh(look.replace(' .', ''), dir)
  await guest.run(`w = remembers.Watch('d', 'd/content', '.')`)
  const { undo } = restore(mount, 'old')
  const wanted = ['d MODIFY content', 'd CREATE back', 'd DELETE made', 'd ATTRIB']
  t.same(missing(wanted, await heard(guest, wanted)), [])
  t.equal(sh(look, dir), before)
  t.same(mount.json<{ findings: unknown[] }>('fsck').findings, [])
  const seen = mount.json<{ changes: unknown[] }>('snapshot', 'diff', '/workspace/a', 'old')
  t.same(seen.changes, [], 'what is there is what was restored')
  restore(mount, undo ?? '')
  const undone = ['d MODIFY content', 'd DELETE back', 'd CREATE made', 'd ATTRIB']
  t.same(missing(undone, await heard(guest, undone)), [])
  t.equal(sh(look.replace(' .', ''), dir), changed)
})

t.test('a watched file alone, its directory not', { skip }, async (t) => {
  const { mount, dir, guest } = await worldFor(t, 'remembers')
  sh('mkdir d; echo 1 > d/content; echo 1 > d/mode; echo 1 > d/other', dir)
  mount.ctl('snapshot', '/workspace/a', '--name', 'old')
  sh('echo 2 > d/content; chmod 600 d/mode; echo 2 > d/other; echo 3 > d/made', dir)
  await guest.run(`w = remembers.Watch('d/content', 'd/mode', 'd/made')`)
  restore(mount, 'old')
  const wanted = ['d/content MODIFY', 'd/content CLOSE_WRITE', 'd/mode ATTRIB', 'd/made DELETE_SELF']
  t.same(missing(wanted, await heard(guest, wanted)), [])
})

t.test('a program that lists its directory and looks at each name as soon as it hears anything', { skip }, async (t) => {
  const { mount, dir, guest } = await worldFor(t, 'remembers')
  sh('mkdir d; for i in $(seq 300); do echo 1 > d/f$i; done', dir)
  mount.ctl('snapshot', '/workspace/a', '--name', 'old')
  sh('rm d/f*; for i in $(seq 300); do echo 2 > d/g$i; done', dir)
  const eager = new Guest(t, dir)
  await eager.run(`sys.path.insert(0, ${JSON.stringify(scriptOf('.'))}); sys.dont_write_bytecode = True; import remembers`)
  await eager.run("e = remembers.Watch('d'); e.follow('d')")
  await guest.run("w = remembers.Watch('d')")
  restore(mount, 'old')
  const wanted = Array.from({ length: 300 }, (_, i) => [`d CREATE f${i + 1}`, `d DELETE g${i + 1}`]).flat()
  t.same(missing(wanted, await heard(guest, wanted)), [], 'others hear of all the same')
  const odd = await eager.run<string[]>('e.unfollow()')
  t.same(odd, [], 'and it saw each name exactly when it was there')
})

t.test('fs.watch', { skip }, async (t) => {
  const { mount, dir } = await worldFor(t, 'remembers')
  sh('mkdir d; echo 1 > d/content; echo 1 > d/back', dir)
  mount.ctl('snapshot', '/workspace/a', '--name', 'old')
  sh('echo 2 > d/content; rm d/back; echo 3 > d/made', dir)
  const events = new Set<string>()
  // The test's own process is not the one that serves.
  const watcher = fs.watch(`${dir}/d`, (event, name) => events.add(`${event} ${name}`))
  t.teardown(() => watcher.close())
  restore(mount, 'old')
  const wanted = ['change content', 'rename back', 'rename made']
  const until = Date.now() + HEARD_MS_MAX
  while (missing(wanted, [...events]).length > 0 && Date.now() < until) await sleep(50)
  t.same(missing(wanted, [...events]), [])
})

t.test(
  'a directory that a program holds for ever keeps nothing waiting, and others hear',
  { skip: skip || !isRoot },
  async (t) => {
    const { mount, dir, guest } = await worldFor(t, 'remembers')
    sh('mkdir d held; echo 1 > d/content; echo 1 > held/back; echo 1 > held/content', dir)
    mount.ctl('snapshot', '/workspace/a', '--name', 'old')
    sh('echo 2 > d/content; rm held/back; echo longer > held/content', dir)
    await guest.run("w = remembers.Watch('d', 'held')")
    const holder = new Guest(t, dir)
    await holder.run(`sys.path.insert(0, ${JSON.stringify(scriptOf('.'))}); sys.dont_write_bytecode = True; import appends`)
    await holder.run("release = appends.stalled('held/content', b'late' * 1000)")
    restore(mount, 'old')
    const wanted = ['d MODIFY content', 'd CLOSE_WRITE content', 'held CREATE back']
    t.same(missing(wanted, await heard(guest, wanted)), [])
    await holder.run('release()')
    holder.end()
  },
)

t.test(
  'what a process that died had asked for is not done by the next one',
  { skip: isRoot ? skip : 'needs root' },
  async (t) => {
    const { mount, dir } = await worldFor(t, 'remembers')
    sh('mkdir d; echo 1 > d/file; mkdir d/directory', dir)
    // As the kernel sends it again: from a thread that nobody knows, with the group of such requests.
    const ask = (call: string): string =>
      execFileSync('python3', ['-c', ASK_AGAIN, call], { cwd: path.join(dir, 'd'), encoding: 'utf8' }).trim()
    for (const call of [
      "os.unlink('file')",
      "os.rmdir('directory')",
      "os.mkdir('new')",
      "os.mknod('new')",
      "os.symlink('x', 'new')",
    ])
      t.equal(ask(call), 'ECANCELED', call)
    t.same(fs.readdirSync(path.join(dir, 'd')).sort(), ['directory', 'file'])
    mount.ctl('fsck')
  },
)

t.test('of what is large and not watched nothing is told, and of what is watched all', { skip }, async (t) => {
  const { mount, dir, guest } = await worldFor(t, 'remembers')
  // NEXUS_LARGE=1: a hundred thousand files, to measure.
  const each = process.env['NEXUS_LARGE'] === '1' ? 1000 : 20
  sh(`mkdir n src; echo 1 > src/main; for i in {1..100}; do mkdir n/$i; (cd n/$i && touch {1..${each}}); done`, dir)
  mount.ctl('snapshot', '/workspace/a', '--name', 'old')
  sh(`for i in {1..100}; do (cd n/$i && chmod 600 *); done; rm n/1/*; echo 2 > src/main; echo > src/made`, dir)
  await guest.run("w = remembers.Watch('.', 'src'); other = remembers.Watch('n/1')")
  const requests = (): Record<string, number> => mount.json<{ requests: Record<string, number> }>('status').requests
  const before = requests()
  const start = performance.now()
  const { elapsed_ms } = restore(mount, 'old')
  const wanted = ['src MODIFY main', 'src DELETE made']
  t.same(missing(wanted, await heard(guest, wanted)), [])
  const back = Array.from({ length: each }, (_, i) => `n/1 CREATE ${i + 1}`)
  t.same(missing(back, await heard(guest, back, 'other')), [])
  const after = requests()
  const asked = ['SETATTR', 'MKNOD'].reduce((sum, name) => sum + (after[name] ?? 0) - (before[name] ?? 0), 0)
  t.ok(asked <= each + 20, `${asked} requests of ours`)
  t.comment(`a restore of ${100 * each} files: ${elapsed_ms} ms, all heard ${performance.now() - start} ms after it began`)
})
