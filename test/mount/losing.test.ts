/**
 * Every way to lose a right, and every system call that it is lost for: with what was opened, entered and mapped before, warm
 * and cold. The call after the one that takes the right away is refused.
 */
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { type AccessMount, accessMountFor, Person, skip } from './access.ts'
import { sh } from './guest.ts'

t.setTimeout(900_000)

/** What somebody has open, where the process is, and what it has mapped, from before. */
const SETTLE = `
os.chdir(D)
ro = os.open('f', os.O_RDONLY)
rw = os.open('g', os.O_RDWR)
dir = os.open('.', os.O_RDONLY | os.O_DIRECTORY)
path = os.open('f', os.O_PATH)
dirpath = os.open('.', os.O_PATH)
mapping = mmap.mmap(ro, 8192, mmap.MAP_SHARED, mmap.PROT_READ)
memory = os.memfd_create('out')
pipe = os.pipe()

def peek(mapping):
    """A page of the mapping, looked at by a child: SIGBUS is how a mapping refuses."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if mapping[4096] == ord('x') else 1)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        raise OSError(errno.EACCES, 'mapping')
    if status != 0:
        raise RuntimeError('the mapping shows something else')
`

const CALLS = [
  "use(D + '/f', os.O_RDONLY)",
  "use(D + '/g', os.O_RDWR)",
  "use(D + '/g', os.O_WRONLY | os.O_TRUNC)",
  "os.stat(D + '/f')",
  'os.listdir(D)',
  'list(os.scandir(D))',
  "os.readlink(D + '/l')",
  "mayaccess(D + '/f', os.R_OK)",
  "os.getxattr(D + '/f', 'user.k')",
  "os.listxattr(D + '/f')",
  'os.chdir(D)',
  "use(D + '/new', os.O_CREAT | os.O_WRONLY); os.unlink(D + '/new')",
  "os.mkdir(D + '/made'); os.rmdir(D + '/made')",
  "os.rename(D + '/r', D + '/r2'); os.rename(D + '/r2', D + '/r')",
  "use('f', os.O_RDONLY)",
  "os.stat('f')",
  "os.stat('s/../f')",
  "os.listdir('.')",
  "use('f', os.O_RDONLY, dir_fd=dir)",
  "os.stat('f', dir_fd=dirpath)",
  "use('new', os.O_CREAT | os.O_WRONLY, dir_fd=dirpath); os.unlink('new', dir_fd=dirpath)",
  'os.listdir(dir)',
  "use('/proc/self/fd/%d' % path, os.O_RDONLY)",
  "os.listdir('/proc/self/fd/%d' % dirpath)",
  'os.pread(ro, 10, 0)',
  "os.pwrite(rw, b'y', 0)",
  'os.ftruncate(rw, 8192)',
  'os.posix_fallocate(rw, 0, 8192)',
  'os.utime(rw)',
  "os.getxattr(ro, 'user.k')",
  'os.copy_file_range(ro, rw, 100, 0, 0)',
  'os.sendfile(memory, ro, 0, 100)',
  'os.splice(ro, pipe[1], 100, offset_src=0); os.read(pipe[0], 100)',
  'os.readv(ro, [bytearray(10)])',
  'peek(mmap.mmap(ro, 8192, mmap.MAP_SHARED, mmap.PROT_READ))',
  'peek(mapping)',
]
const FILL = `
  mkdir -m 777 s; head -c 8192 /dev/zero | tr '\\0' x > f; cp f g; ln -s f l; echo r > r
  chmod 666 f g r; chmod 777 .; chown 1001:1001 . s f g r; setfattr -n user.k -v v f
`

interface Scene extends AccessMount {
  /** the subject that is to lose it, and its uid */
  who: string
  uid: number
  /** a tenant of alice's for this row alone, as nexusctl has it: /tenants/NAME, with the directory d */
  top: string
  name: string
}

interface Way {
  name: string
  give(scene: Scene): Promise<unknown>
  take(scene: Scene): Promise<unknown>
  /** where the directory is by then, when not at d */
  at?: string
  /** refused in another way than EACCES: what the way takes is not there any more */
  isGone?: true
  /** what was opened before goes on, as after an unlink: nobody lost a right, and the inode has no name */
  isUnlinked?: true
  /** a system call that cannot wait for what the kernel drops: then soon */
  isSoon?: true
  /** for those that come after */
  after?(scene: Scene): Promise<unknown>
}

const dirOf = ({ top }: Scene): string => `${top}/d`
const partnerOf = ({ name }: Scene): string => `p-${name}`

async function partner(scene: Scene): Promise<void> {
  await scene.service.tenantOnboard(partnerOf(scene), { admin: 'user:alice' })
  await scene.service.grant(scene.who, 'viewer', `/tenants/${partnerOf(scene)}`, {})
  await scene.service.grant(`tenant:${partnerOf(scene)}#member`, 'editor', scene.top, {})
}

const ways: Way[] = [
  {
    name: 'revoke on the directory',
    give: (s) => s.service.grant(s.who, 'editor', dirOf(s), {}),
    take: (s) => s.service.revoke(s.who, 'editor', dirOf(s)),
  },
  {
    name: 'revoke above',
    give: (s) => s.service.grant(s.who, 'editor', s.top, {}),
    take: (s) => s.service.revoke(s.who, 'editor', s.top),
  },
  {
    name: 'expiry',
    give: (s) => s.service.grant(s.who, 'editor', dirOf(s), {}),
    take: async (s) => {
      const expires = new Date(Date.now() + 200).toISOString()
      await s.service.grant(s.who, 'editor', dirOf(s), { expires })
      await delay(250)
    },
    isSoon: true,
  },
  {
    name: 'group remove',
    give: async (s) => {
      await s.service.groupAdd(s.name, s.who)
      await s.service.grant(`group:${s.name}#member`, 'editor', dirOf(s), {})
    },
    take: (s) => s.service.groupRemove(s.name, s.who),
  },
  {
    name: 'a group in a group in a group, the innermost',
    give: async (s) => {
      await s.service.groupAdd(`${s.name}-c`, s.who)
      await s.service.groupAdd(`${s.name}-b`, `group:${s.name}-c#member`)
      await s.service.groupAdd(`${s.name}-a`, `group:${s.name}-b#member`)
      await s.service.grant(`group:${s.name}-a#member`, 'editor', s.top, {})
    },
    take: (s) => s.service.groupRemove(`${s.name}-c`, s.who),
  },
  {
    name: 'a tenant’s member no more',
    give: partner,
    take: (s) => s.service.revoke(s.who, 'viewer', `/tenants/${partnerOf(s)}`),
  },
  {
    name: 'a member of a tenant that is a member of a tenant',
    give: async (s) => {
      await s.service.tenantOnboard(`m-${s.name}`, { admin: 'user:alice' })
      await partner({ ...s, top: `/tenants/m-${s.name}` })
      await s.service.grant(`tenant:m-${s.name}#member`, 'editor', s.top, {})
    },
    take: (s) => s.service.revoke(s.who, 'viewer', `/tenants/${partnerOf(s)}`),
  },
  { name: 'the tenant is deleted', give: partner, take: (s) => s.service.workspaceDelete(`/tenants/${partnerOf(s)}`) },
  {
    name: 'the tenant is moved, and is none any more',
    give: partner,
    take: (s) => s.service.workspaceRename(`/tenants/${partnerOf(s)}`, `/workspace/${partnerOf(s)}`),
  },
  {
    name: 'the tenant’s grant is revoked',
    give: partner,
    take: (s) => s.service.revoke(`tenant:${partnerOf(s)}#member`, 'editor', s.top),
  },
  {
    name: 'identity remove',
    give: (s) => s.service.grant(s.who, 'editor', dirOf(s), {}),
    take: (s) => s.service.identityRemove(s.who, {}),
  },
  {
    name: 'identity add',
    give: async (s) => {
      await s.service.identityRemove(s.who, {})
      await s.service.grant(`user:uid-${s.uid}`, 'editor', dirOf(s), {})
    },
    take: (s) => s.service.identityAdd('user:somebody-else', s.uid),
  },
  {
    name: 'everybody’s grant is revoked',
    give: (s) => s.service.grant('user:*', 'editor', s.top, {}),
    take: (s) => s.service.revoke('user:*', 'editor', s.top),
  },
  {
    name: 'model apply',
    give: (s) => s.service.grant(s.who, 'editor', dirOf(s), {}),
    take: async ({ service }) => {
      const { text } = await service.modelShow()
      await service.modelApply(text.replaceAll(/define (read|write): \w+/g, 'define $1: owner'))
    },
    after: async ({ service }) => {
      const { text } = await service.modelShow()
      await service.modelApply(
        text.replaceAll('define read: owner', 'define read: viewer').replaceAll('define write: owner', 'define write: editor'),
      )
    },
  },
  {
    name: 'workspace delete',
    give: (s) => s.service.grant(s.who, 'editor', s.top, {}),
    take: (s) => s.service.workspaceDelete(s.top),
    isGone: true,
  },
  {
    name: 'a rename out of the directory that was given',
    at: 'given/d',
    give: async (s) => {
      const W = s.mount.at('tenants', s.name)
      sh('mkdir -m 777 given; mv d given/d', W)
      await s.service.grant(s.who, 'editor', `${s.top}/given`, {})
    },
    take: async (s) => sh('mkdir -m 777 other; mv given/d other/d', s.mount.at('tenants', s.name)),
    isGone: true,
    isSoon: true,
  },
  {
    name: 'a restore that removes the directory',
    give: async (s) => {
      const W = s.mount.at('tenants', s.name)
      sh('mv d elsewhere', W)
      await s.service.snapshotCreate(s.top, { name: 'without' })
      sh('cp -a elsewhere d', W)
      await s.service.grant(s.who, 'editor', dirOf(s), {})
    },
    take: (s) => s.service.restore(s.top, 'without', { force: true }),
    isGone: true,
    isUnlinked: true,
  },
  {
    name: 'a restore that moves the directory out of what was given',
    at: 'given/d',
    isGone: true,
    give: async (s) => {
      const W = s.mount.at('tenants', s.name)
      await s.service.snapshotCreate(s.top, { name: 'outside' })
      sh('mkdir -m 777 given; mv d given/d', W)
      await s.service.grant(s.who, 'editor', `${s.top}/given`, {})
    },
    take: (s) => s.service.restore(s.top, 'outside', { force: true }),
  },
]

const SOON_MS = 20_000

t.test('the call after', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  for (const [i, way] of ways.entries()) {
    for (const phase of ['warm', 'cold']) {
      const name = `t${i}${phase}`
      const uid = 3000 + 2 * i + (phase === 'warm' ? 0 : 1)
      const scene: Scene = { mount, service, uid, who: `user:${name}`, name, top: `/tenants/${name}` }
      await t.test(`${way.name}, ${phase}`, async (t) => {
        await service.identityAdd(scene.who, uid)
        await service.tenantOnboard(name, { admin: 'user:alice', directories: ['d'] })
        sh(FILL, mount.at('tenants', name, 'd'))
        await way.give(scene)
        const person = await Person.start(t, uid)
        const problem = await person.run(`D = ${JSON.stringify(mount.at('tenants', name, way.at ?? 'd'))}\n${SETTLE}`)
        t.equal(problem, null, 'settled')
        if (phase === 'warm') {
          t.same(
            await person.attempt(CALLS),
            CALLS.map(() => 'ok'),
            'before',
          )
          await person.run("os.pwrite(rw, b'x' * 8192, 0); os.fsync(rw)")
        }
        await way.take(scene)
        let answers = await person.attempt(CALLS)
        for (const end = Date.now() + SOON_MS; way.isSoon && answers.includes('ok') && Date.now() < end; ) {
          await delay(50)
          answers = await person.attempt(CALLS)
        }
        for (const [j, code] of CALLS.entries()) {
          if (way.isUnlinked && !code.includes('D + ')) continue
          if (way.isGone) t.not(answers[j], 'ok', `${code}: ${answers[j]}`)
          else t.equal(answers[j], 'EACCES', code)
        }
        person.end()
        await way.after?.(scene)
      })
    }
  }
})
