/** Stores in mappings are nobody's requests: those of a process whose user may not write (any more) never reach the store. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Test, test } from 'tap'
import { type AccessMount, accessMountFor, Person, skip, uids } from './access.ts'
import { childrenOf, gone, type TestMount } from './harness.ts'

const ACME = '/tenants/acme'
const TEXT = 'before'
/** A busy machine takes its time to look through /proc. */
const WAIT_MS_MAX = 60_000

/** What the daemon has of a file, past the kernel's cache. */
function stored(file: string): string {
  return execFileSync('dd', [`if=${file}`, 'iflag=direct', 'bs=4096', 'count=1', 'status=none'], { encoding: 'latin1' }).slice(
    0,
    6,
  )
}

async function until(is: () => boolean | Promise<boolean>): Promise<boolean> {
  for (const end = Date.now() + WAIT_MS_MAX; Date.now() < end; await sleep(100)) if (await is()) return true
  return false
}

/** Python: opens, maps and stores; `store` says how msync(2) ended. */
const HOLDS = `
def opened(path):
    global fd
    fd = os.open(path, os.O_RDWR)

def mapped():
    global area
    area = mmap.mmap(fd, 4096)

def store(text):
    area[0:len(text)] = text
    if libc.msync(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(area)) & ~4095), ctypes.c_size_t(4096), 4) != 0:
        raise OSError(ctypes.get_errno(), 'msync')
`

interface World extends AccessMount {
  file: string
  bob: Person
  carol: Person
}

/** bob and carol are editors of acme, and can map files. */
async function worldFor(t: Test): Promise<World> {
  const world = await accessMountFor(t)
  for (const name of ['bob', 'carol']) await world.service.grant(`user:${name}`, 'editor', ACME, {})
  const file = world.mount.at('tenants', 'acme', 'data', 'f')
  fs.writeFileSync(file, TEXT.padEnd(4096))
  fs.chmodSync(file, 0o666)
  const [bob, carol] = [await Person.start(t, uids.bob), await Person.start(t, uids.carol)]
  for (const person of [bob, carol]) await person.run(HOLDS)
  return { ...world, file, bob, carol }
}

/** The file is what it was, in the store and, soon, for all who read it. */
async function isUnchanged(t: Test, { file, mount }: World, by: Person, what: string): Promise<void> {
  t.equal(stored(file), TEXT, `${what}: the store has what it had`)
  t.ok(await until(async () => (await by.run<string>(`read('${file}')[:6]`)) === TEXT), `${what}: it is read again`)
  t.equal(stored(file), TEXT, `${what}: nor has it changed later`)
  t.match(mount.log, /a mapping changed a file that a process without the right to write holds open/, what)
}

const LOST: Record<string, (world: World) => Promise<void>> = {
  demoted: async ({ service }) => {
    await service.grant('user:bob', 'viewer', ACME, {})
    await service.revoke('user:bob', 'editor', ACME)
  },
  revoked: async ({ service }) => {
    await service.revoke('user:bob', 'editor', ACME)
  },
}

for (const [what, lose] of Object.entries(LOST)) {
  test(`an old descriptor of an editor who was ${what} gives a mapping that changes nothing`, { skip }, async (t) => {
    const world = await worldFor(t)
    const { bob, carol, file } = world
    t.equal(await bob.try(`opened('${file}')`), 'ok')
    await lose(world)
    t.equal(await bob.try('mapped()'), 'ok', 'the kernel asks nobody')
    // A page that somebody else has read needs no request.
    await carol.run(`read('${file}')`)
    t.equal(await bob.try("store(b'stolen')"), 'EACCES')
    await isUnchanged(t, world, carol, what)
  })

  test(`an old mapping of an editor who was ${what} changes nothing`, { skip }, async (t) => {
    const world = await worldFor(t)
    const { bob, carol, file } = world
    await bob.attempt([`opened('${file}')`, 'mapped()', "store(b'before')", 'os.close(fd)'])
    await lose(world)
    await carol.run(`read('${file}')`)
    t.equal(await bob.try("store(b'stolen')"), 'EACCES')
    await isUnchanged(t, world, carol, what)
    // Also without msync(2), by its end.
    await carol.run(`read('${file}')`)
    await bob.run("area[0:6] = b'stolen'")
    bob.end()
    await isUnchanged(t, world, carol, `${what}, and ended`)
  })
}

test('mappings of those who may still write go on', { skip }, async (t) => {
  const world = await worldFor(t)
  const { bob, carol, file, mount } = world
  const other = mount.at('tenants', 'acme', 'data', 'g')
  fs.writeFileSync(other, TEXT.padEnd(4096))
  fs.chmodSync(other, 0o666)
  await bob.attempt([`opened('${file}')`, 'mapped()'])
  await carol.attempt([`opened('${other}')`, 'mapped()'])
  await LOST['revoked']?.(world)
  t.equal(await carol.try("store(b'carols')"), 'ok', 'of another file at once')
  t.equal(stored(other), 'carols')
  bob.end()
  t.equal(await carol.try(`opened('${file}'); mapped()`), 'ok')
  t.ok(await until(async () => (await carol.try("store(b'carols')")) === 'ok'), 'of the same file when it is held no more')
  t.equal(stored(file), 'carols')
})

test('a process that takes the mount over refuses the same', { skip }, async (t) => {
  const world = await worldFor(t)
  const { bob, carol, file, mount } = world
  await bob.attempt([`opened('${file}')`, 'mapped()'])
  await LOST['demoted']?.(world)
  const [serving] = servingOf(mount)
  process.kill(serving as number, 'SIGKILL')
  await gone(serving as number)
  t.equal(await bob.try("area[0]; store(b'stolen')"), 'EACCES')
  await isUnchanged(t, world, carol, 'taken over')
})

/** The process that serves is the one with the mount's descriptor. */
function servingOf(mount: TestMount): number[] {
  const { pid } = mount.json<{ pid: number }>('status')
  return childrenOf(mount.pid).filter((child) => child === pid)
}

test('a mapping of a file in a snapshot changes nothing, whoever made it', { skip }, async (t) => {
  const { mount, file, carol } = await worldFor(t)
  mount.ctl('snapshot', ACME, '--name', 's')
  const view = mount.at('tenants', 'acme', '.snapshots', 's', 'data', 'f')
  const root = "import mmap,os,sys; fd=os.open(sys.argv[1],os.O_RDWR); m=mmap.mmap(fd,4096); m[0:6]=b'stolen'; m.flush()"
  t.throws(() => execFileSync('python3', ['-c', root, view], { stdio: ['ignore', 'ignore', 'pipe'] }), /EROFS|Errno 30|Read-only/)
  t.equal(stored(view), TEXT)
  t.ok(await until(async () => (await carol.run<string>(`read('${view}')[:6]`)) === TEXT), 'it is read again')
  t.equal(stored(file), TEXT)
  t.match(mount.log, /a mapping changed a file of a snapshot/)
})

/** How a file is opened; the kernel asks the daemon at none of them. */
const OPENS: Record<string, string> = {
  'by its path': 'os.open(F, os.O_RDWR)',
  'by its path, for writing only': 'os.open(F, os.O_WRONLY)',
  'by a descriptor for reading': "os.open('/proc/self/fd/%d' % os.open(F, os.O_RDONLY), os.O_RDWR)",
  'by an O_PATH descriptor': "os.open('/proc/self/fd/%d' % os.open(F, os.O_PATH), os.O_RDWR)",
  'by its handle': 'by_handle(F)',
}
const BY_HANDLE = `
def by_handle(path):
    handle, mount = ctypes.create_string_buffer(struct.pack('<Ii', 128, 0), 136), ctypes.c_int()
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    if libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), handle, ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), 'name_to_handle_at')
    fd = libc.open_by_handle_at(directory, handle, os.O_RDWR)
    if fd < 0:
        raise OSError(ctypes.get_errno(), 'open_by_handle_at')
    return fd

def fallocate(fd, mode):
    if libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(4096)) != 0:
        raise OSError(ctypes.get_errno(), 'fallocate')

def piped(fd):
    ends = os.pipe()
    os.write(ends[1], b'x')
    os.splice(ends[0], fd, 1)

def owner_in_a_namespace():
    uid, gid = os.geteuid(), os.getegid()
    os.setresuid(uid, uid, uid)
    libc.prctl(4, 1, 0, 0, 0)
    if libc.unshare(0x10000000) != 0:
        raise OSError(ctypes.get_errno(), 'unshare')
    for name, text in (('setgroups', 'deny'), ('uid_map', '0 %d 1' % uid), ('gid_map', '0 %d 1' % gid)):
        with open('/proc/self/' + name, 'w') as file:
            file.write(text)
`
/** What is tried with such a descriptor. */
const CHANGES = [
  "os.write(fd, b'stolen')",
  'os.ftruncate(fd, 0)',
  'fallocate(fd, 0)',
  'fallocate(fd, 3)',
  'os.copy_file_range(live, fd, 10, 0)',
  'os.sendfile(fd, other, 0, 10)',
  'piped(fd)',
  'os.fchmod(fd, 0o777)',
  'os.fchown(fd, os.geteuid(), os.getegid())',
  'os.utime(fd)',
  "os.setxattr(fd, 'user.k', b'v')",
]

test('a file of a snapshot that root or its owner opens for writing cannot be changed', { skip }, async (t) => {
  const { mount, service, file } = await worldFor(t)
  await service.grant('user:alice', 'editor', ACME, {})
  fs.chownSync(file, uids.alice, uids.alice)
  mount.ctl('snapshot', ACME, '--name', 's')
  const view = mount.at('tenants', 'acme', '.snapshots', 's', 'data', 'f')
  const [root, alice] = [await Person.start(t, 0), await Person.start(t, uids.alice)]
  for (const person of [root, alice])
    await person.run(
      `F = '${view}'\nother = os.memfd_create('x')\nos.write(other, b'x' * 10)\nlive = os.open('${file}', os.O_RDONLY)\n${BY_HANDLE}`,
    )
  for (const [how, code] of Object.entries(OPENS)) {
    const opened = await alice.try(`fd = ${code}`)
    t.ok(opened === 'EACCES' || opened === 'EPERM', `its owner, ${how}: ${opened}`)
  }
  t.equal(await root.try('os.open(F, os.O_RDWR | os.O_TRUNC)'), 'EROFS')
  t.equal(await root.try('os.truncate(F, 0)'), 'EROFS')
  for (const [how, code] of Object.entries(OPENS)) {
    t.equal(await root.run(`fd = ${code}`), null, `root, ${how}`)
    t.same(
      await root.attempt(CHANGES),
      CHANGES.map(() => 'EROFS'),
      `root, ${how}`,
    )
  }
  const isOwner = await alice.try('owner_in_a_namespace()')
  if (isOwner === 'ok') {
    t.equal(await alice.run('fd = os.open(F, os.O_RDWR)'), null, 'its owner with all capabilities over it')
    t.same(
      await alice.attempt(CHANGES),
      CHANGES.map(() => 'EROFS'),
      'its owner in a user namespace',
    )
  } else t.comment(`NO USER NAMESPACES HERE: ${isOwner}`)
  t.equal(stored(view), TEXT)
  t.equal(fs.readFileSync(file, 'utf8').slice(0, 6), TEXT)
})

test('stores that are refused make no snapshot fail', { skip }, async (t) => {
  const world = await worldFor(t)
  const { bob, carol, file, mount } = world
  await bob.attempt([`opened('${file}')`, 'mapped()'])
  await LOST['revoked']?.(world)
  for (let round = 0; round < 3; round++) {
    // Without a page in the kernel's cache the store of a user without any right is a SIGBUS. The kernel tells the next close(2)
    // of the file that a page could not be written (fuse_flush), whoever it is of.
    await carol.try(`read('${file}')`)
    await bob.run("area[0:6] = b'stolen'")
    mount.ctl('snapshot', ACME, '--name', `s${round}`)
    t.equal(stored(mount.at('tenants', 'acme', '.snapshots', `s${round}`, 'data', 'f')), TEXT)
  }
})
