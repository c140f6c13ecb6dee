/** People in a mount: processes with uids of their own, for the tests of relationship-based access control. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import type { Test } from 'tap'
import type { Service } from '../../src/api/calls.ts'
import { connectControl } from '../../src/client/client.ts'
import { socketPathOf } from '../../src/host/location.ts'
import { Guest } from './guest.ts'
import { type MountOptions, mountFor, noMount, type TestMount } from './harness.ts'

/** Processes with other uids are started by root. */
export const skip = noMount ?? (process.getuid?.() === 0 ? false : 'only root can be several users')

export const uids = { alice: 1001, bob: 1002, carol: 1003, frank: 1004, gina: 1005, eve: 1006, rick: 1007 } as const
export type Name = keyof typeof uids
/** a uid that no identity names */
export const STRANGER = 1999

/**
 * Python for a person: `become` keeps 0 as the saved uid, so that `as_root` can hand something to the process that it
 * could not open itself. What the kernel and the daemon go by is the effective uid.
 */
const PRELUDE = `
import posix
O_PATH = os.O_PATH
AT_EACCESS = 0x200
AT_FDCWD = -100

def become(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, 0)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self stays its own

def as_root(action):
    uid = os.geteuid()
    os.seteuid(0)
    try:
        return action()
    finally:
        os.seteuid(uid)
        libc.prctl(4, 1, 0, 0, 0)

def use(path, flags, action=None, **more):
    fd = os.open(path, flags, 0o666, **more)
    try:
        return action(fd) if action else None
    finally:
        os.close(fd)

def read(path, **more):
    return use(path, os.O_RDONLY, lambda fd: os.read(fd, 1 << 20), **more)

def write(path, data=b'written', flags=os.O_WRONLY, **more):
    return use(path, flags, lambda fd: os.write(fd, data), **more)

def make(path, mode=0o666):
    use(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.chmod(path, mode)

def mayaccess(path, mode):
    if libc.faccessat(AT_FDCWD, os.fsencode(path), mode, AT_EACCESS) != 0:
        raise OSError(ctypes.get_errno(), path)

def exchange(a, b):
    if libc.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), 2) != 0:
        raise OSError(ctypes.get_errno(), a)

def execute(path, *words):
    pid = os.posix_spawn(path, [path, *words], {'PATH': '/usr/bin:/bin'})
    status = os.waitpid(pid, 0)[1]
    if status != 0:
        raise RuntimeError('exit status %d' % status)

def copy_range(a, b):
    return use(a, os.O_RDONLY, lambda i: use(b, os.O_WRONLY, lambda o: os.copy_file_range(i, o, 100)))

def within(path, action):
    os.chdir(path)
    try:
        return action()
    finally:
        os.chdir('/')

def same(a, b):
    if a != b:
        raise RuntimeError('%r is not %r' % (a, b))

def attempt(rows, **names):
    done = []
    for code in rows:
        try:
            exec(compile(code, 'row', 'exec'), {**globals(), **names})
            done.append('ok')
        except OSError as failure:
            done.append(errno.errorcode.get(failure.errno, str(failure)))
        except Exception as failure:
            done.append(repr(failure))
    return done
`

/** Somebody whose process keeps its directory, its descriptors and whatever the kernel cached for it. */
export class Person {
  readonly uid: number
  readonly #guest: Guest

  private constructor(guest: Guest, uid: number) {
    this.#guest = guest
    this.uid = uid
  }

  /** @param cwd where the process is when it gives up being root */
  static async start(t: Test, uid: number, cwd = '/'): Promise<Person> {
    const person = new Person(new Guest(t, cwd), uid)
    const problem = await person.run(`${PRELUDE}\nbecome(${uid})`)
    if (problem !== null) throw new Error(`cannot become ${uid}: ${problem}`)
    return person
  }

  /** A value, null for statements, or the name of the errno. */
  async run<T = unknown>(code: string): Promise<T> {
    return this.#guest.run<T>(code)
  }

  /** `ok` or the errno's name. */
  async try(code: string): Promise<string> {
    return (await this.attempt([code]))[0] ?? 'nothing was run'
  }

  /** The same for each of these; `names` are variables that they may use. */
  async attempt(codes: readonly string[], names: Record<string, string | number> = {}): Promise<string[]> {
    const answer = await this.run<string[] | string>(`attempt(json.loads(${literal(codes)}), **json.loads(${literal(names)}))`)
    if (!Array.isArray(answer) || answer.length !== codes.length) throw new Error(`not what was asked for: ${String(answer)}`)
    return answer
  }

  end(): void {
    this.#guest.end()
  }
}

/** JSON text as a string that Python reads too. */
function literal(value: unknown): string {
  return JSON.stringify(JSON.stringify(value))
}

/** Whether a program is on this machine. */
export function has(program: string): boolean {
  try {
    execFileSync('bash', ['-c', `command -v ${program}`])
    return true
  } catch {
    return false
  }
}

/** A shell script run by a uid: its stdout, or with what it failed. */
export function shAs(uid: number, script: string, cwd: string): string {
  const words = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--', 'bash', '-euc', script]
  return execFileSync('setpriv', words, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 64 << 20 })
}

export interface AccessMount {
  mount: TestMount
  /** nexusctl without the start of a process: for what a test only needs to be there */
  service: Service
}

/** A mount that everybody reaches, whose people have identities, with the tenant acme of alice. */
export async function accessMountFor(t: Test, options: MountOptions = {}): Promise<AccessMount> {
  const mount = await mountFor(t, options)
  // mkdtemp(3) makes it for root alone.
  fs.chmodSync(path.dirname(mount.mountpoint), 0o755)
  const service = connectControl({ socketPath: socketPathOf(mount.data) })
  for (const [name, uid] of Object.entries(uids)) await service.identityAdd(`user:${name}`, uid)
  await service.tenantOnboard('acme', { admin: 'user:alice', directories: ['data', 'way'] })
  return { mount, service }
}

/** What warms every cache there is: names, attributes, ACLs, listings and pages. */
export const WALK = `
  find . -ls > /dev/null; getfacl -R . > /dev/null 2>&1; find . -type l -exec readlink {} + > /dev/null
  find . -type f -exec cat {} + > /dev/null; find . -exec getfattr -d -m - {} + > /dev/null; ls -lR . > /dev/null; ls -lR .snapshots > /dev/null 2>&1 || true
`

/** Tells it with `grants`: who has what on a path itself, as `user:bob editor`. */
export function grantsOn(mount: TestMount, at: string): string[] {
  const all = mount.json<{ subject: string; relation: string; inherited: boolean }[]>('grants', at)
  return all
    .filter((one) => !one.inherited)
    .map((one) => `${one.subject} ${one.relation}`)
    .sort()
}
